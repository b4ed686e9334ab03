from __future__ import annotations

import errno
import gc

import numpy as np
import pytest
import torch
from PIL import Image

from matcher import EncodedImage, InputError
from matcher.encoded_images import load_payload, num_bytes, save_payload
from matcher.encoding_cache import EncodingCache, MemoryLimits, UnreadablePhotographError
from matcher.images import prepare_view
from matcher.model.network import EncodedViews

HEIGHT, WIDTH = 48, 64
PHOTOGRAPH = HEIGHT * WIDTH * 3
TOKENS, LEVEL = 5 * 7 * 4, 6 * 8 * 10 * 4
ENCODING = TOKENS + LEVEL


def photograph(seed):
    return np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def encoding(seed):
    generator = torch.Generator().manual_seed(seed)
    level = torch.rand(1, 6, 8, 10, generator=generator).to(memory_format=torch.channels_last)
    return EncodedViews(torch.rand(1, 5, 7, generator=generator), (1, 5), (level,))


def encoded_image(seed):
    image = photograph(seed)
    return EncodedImage(image, prepare_view(image, min_size=1), encoding(seed))


def check_encoding(found, seed):
    expected = encoding(seed)
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.pyramid[0], expected.pyramid[0])
    assert found.pyramid[0].stride() == expected.pyramid[0].stride()
    assert (found.grid, found.pixels) == (expected.grid, None)


@pytest.fixture
def sources(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    paths = [folder / f"{seed}.png" for seed in range(6)]
    for seed, path in enumerate(paths):
        Image.fromarray(photograph(seed)).save(path)
    return paths


def spilled(folder):
    return sorted(folder.glob("widebase-*/*.safetensors"))


def kept_bytes(cache):
    """What the cache really holds in memory, without asking its own books."""
    total = 0
    for part in [*cache._encodings.values(), *cache._photographs.values()]:
        if isinstance(part.payload, EncodedViews):
            tensors = [part.payload.tokens, *part.payload.pyramid]
            total += sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        elif part.payload is not None:
            total += part.payload.nbytes
    return total


def test_everything_comes_back_whatever_the_memory(tmp_path, sources):
    for host_bytes in (0, ENCODING, PHOTOGRAPH, PHOTOGRAPH + 2 * ENCODING, 1 << 30):
        limits = MemoryLimits(host_bytes=host_bytes, disk_folder=tmp_path)
        with EncodingCache(limits) as cache:
            for seed, source in enumerate(sources):
                cache.put(seed, encoded_image(seed), source)
                assert kept_bytes(cache) == cache.host_bytes <= host_bytes
            random = np.random.default_rng(0)
            for seed in random.integers(0, len(sources), 60).tolist():
                check_encoding(cache.encoded(seed), seed)
                assert kept_bytes(cache) == cache.host_bytes <= host_bytes
                if random.random() < 0.5:
                    np.testing.assert_array_equal(cache.photograph(seed), photograph(seed))
                    assert kept_bytes(cache) == cache.host_bytes <= host_bytes
            assert cache.num_encoded == len(sources)
            assert cache.peak_host_bytes <= host_bytes
            # Photographs are read again from their own files: only encodings are written.
            assert cache.disk_bytes == ENCODING * len(spilled(tmp_path))
            assert (len(spilled(tmp_path)) == 0) == (host_bytes == 1 << 30)
        assert list(tmp_path.iterdir()) == [tmp_path / "photographs"]


def test_the_least_recently_used_moves_down(tmp_path, sources):
    limits = MemoryLimits(host_bytes=3 * ENCODING, disk_folder=tmp_path)
    with EncodingCache(limits) as cache:
        for seed in range(3):
            cache.put(seed, encoded_image(seed), sources[seed])
        assert spilled(tmp_path) == []  # a photograph is larger than all of that memory
        cache.encoded(0)
        cache.put(3, encoded_image(3), sources[3])
        assert cache._encodings[1].payload is None
        assert all(cache._encodings[seed].payload is not None for seed in (0, 2, 3))
        before = spilled(tmp_path)
        cache.encoded(1)  # pushes 2 out
        cache.encoded(2)  # pushes 0 out
        cache.encoded(3)
        cache.encoded(1)
        assert len(spilled(tmp_path)) == 3  # each is written once, however often it leaves
        assert before[0] in spilled(tmp_path)


def test_the_device_is_a_tier_above_the_host(tmp_path, sources):
    """The meta device stands in for a GPU: what is on it has a size and no values."""
    limits = MemoryLimits(2 * ENCODING, ENCODING + PHOTOGRAPH, tmp_path)
    cache = EncodingCache(limits, "cpu")
    other = EncodingCache(limits, "meta")
    for seed in range(2):
        other.put(seed, encoded_image(seed), sources[seed])
    other._device.device = torch.device("cpu")  # values are needed from here on
    assert other.device_bytes == 2 * ENCODING
    assert other.host_bytes == PHOTOGRAPH
    other.put(2, encoded_image(2), sources[2])
    assert (other.device_bytes, other.host_bytes) == (2 * ENCODING, ENCODING + PHOTOGRAPH)
    assert other.disk_bytes == 0
    other.put(3, encoded_image(3), sources[3])  # 1 goes to the host, and 0 to the disk
    assert other.disk_bytes == ENCODING
    check_encoding(other.encoded(0), 0)
    assert (other.peak_device_bytes, other.device_bytes) == (2 * ENCODING, 2 * ENCODING)
    assert other.peak_host_bytes <= ENCODING + PHOTOGRAPH
    assert other.batch_bytes == 2 * ENCODING
    assert cache.batch_bytes == (ENCODING + PHOTOGRAPH) // 2
    other.close()


def test_memory_that_ran_out_stays_lower(tmp_path, sources):
    with EncodingCache(MemoryLimits(host_bytes=1 << 30, disk_folder=tmp_path)) as cache:
        for seed, source in enumerate(sources):
            cache.put(seed, encoded_image(seed), source)
        before = cache.host_bytes
        assert before == len(sources) * (ENCODING + PHOTOGRAPH)
        cache.give_way()
        assert before / 3 < cache.host_bytes <= before // 2
        for seed in range(len(sources)):
            check_encoding(cache.encoded(seed), seed)
            cache.photograph(seed)
            assert cache.host_bytes <= before // 2


def test_an_array_that_has_no_file_goes_to_the_disk(tmp_path):
    with EncodingCache(MemoryLimits(host_bytes=0, disk_folder=tmp_path)) as cache:
        cache.put("array", encoded_image(7))
        assert len(spilled(tmp_path)) == 2
        np.testing.assert_array_equal(cache.photograph("array"), photograph(7))
        cache.forget("array")
        assert spilled(tmp_path) == []
        assert "array" not in cache
        assert len(cache) == 0


def test_what_is_always_remembered(sources):
    with EncodingCache(MemoryLimits(host_bytes=0)) as cache:
        cache.put(0, encoded_image(0), sources[0])
        seen = cache.seen(0)
        assert seen.value_range == (photograph(0).min(), photograph(0).max())
        assert seen.encoded_bytes == ENCODING
        assert seen.view.pixels.shape == (3, HEIGHT, WIDTH)
        assert seen.view.pixels.untyped_storage().nbytes() == 4
        assert bool(seen.view.matchable().all())


def test_a_row_of_a_batch_does_not_keep_the_batch(sources):
    batch = EncodedViews(torch.rand(50, 5, 7), (1, 5))
    image = encoded_image(0)
    with EncodingCache() as cache:
        cache.put(0, EncodedImage(image.image, image.view, batch[3]), sources[0])
        kept = cache.encoded(0).tokens
        assert kept.untyped_storage().nbytes() == TOKENS
        assert torch.equal(kept, batch.tokens[3:4])


def test_a_photograph_that_is_gone_or_another(tmp_path, sources):
    with EncodingCache(MemoryLimits(host_bytes=0, disk_folder=tmp_path)) as cache:
        for seed in range(2):
            cache.put(seed, encoded_image(seed), sources[seed])
        sources[0].unlink()
        with pytest.raises(UnreadablePhotographError, match="photograph: expected an image file"):
            cache.photograph(0)
        Image.fromarray(photograph(1)[:, :20]).save(sources[1])
        with pytest.raises(UnreadablePhotographError, match="expected 64 x 48 pixels.*got 20 x 48"):
            cache.photograph(1)


def test_a_full_disk_is_named_and_leaves_no_file(tmp_path, sources, monkeypatch):
    def fail(path, payload):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("matcher.encoding_cache.save_payload", fail)
    cache = EncodingCache(MemoryLimits(host_bytes=0, disk_folder=tmp_path))
    with pytest.raises(InputError, match="disk_folder: expected room.*No space left on device"):
        cache.put(0, encoded_image(0), sources[0])
    assert spilled(tmp_path) == []
    cache.close()


def test_files_keep_every_bit(tmp_path):
    full = EncodedViews(
        torch.rand(1, 3, 4),
        (1, 3),
        (torch.rand(1, 2, 4, 4), torch.rand(1, 3, 2, 2)),
        torch.rand(1, 3, 8, 8),
    )
    save_payload(tmp_path / "a", full)
    found = load_payload(tmp_path / "a")
    assert num_bytes(found) == num_bytes(full)
    assert torch.equal(found.pixels, full.pixels)
    assert all(torch.equal(*both) for both in zip(found.pyramid, full.pyramid, strict=True))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"host_bytes": -1}, "host_bytes: expected 0 bytes or more, got -1"),
        ({"device_bytes": -1}, "device_bytes: expected 0 bytes or more, got -1"),
        ({"disk_folder": "/no/such"}, "disk_folder: expected a folder that exists, got /no/such"),
    ],
)
def test_bad_limits(values, words):
    with pytest.raises(InputError, match=words):
        MemoryLimits(**values)


def test_nothing_is_held_after_closing(sources):
    cache = EncodingCache()
    for seed, source in enumerate(sources):
        cache.put(seed, encoded_image(seed), source)
    cache.close()
    gc.collect()
    alive = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.shape == (1, 5, 7)]
    assert alive == []
    assert (cache.host_bytes, len(cache)) == (0, 0)
