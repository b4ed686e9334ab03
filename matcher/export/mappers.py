"""Runs of COLMAP's mappers on a database of ours."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matcher.colmap import camera_to_pycolmap
from matcher.export.colmap import ColmapExport, camera_numbers
from matcher.export.photograph_cameras import TYPICAL_FOCAL

__all__ = ["Mapper", "MapperRun"]

Mapper = Literal["incremental", "global"]

_MIN_MODEL_SIZE = 2


@dataclass(frozen=True, slots=True, eq=False)
class MapperRun:
    """What a mapper works on.

    Attributes:
        pycolmap: the module.
        staging: folder that may be filled.
        database: the exported database, which is left as it is.
        images: folder of the photographs.
        export: what the database holds.
        seed: of every random choice.
    """

    pycolmap: Any
    staging: Path
    database: Path
    images: Path
    export: ColmapExport
    seed: int

    def models(self, mapper: Mapper) -> list[Path]:
        """Folders of the models found, largest first.

        Where focals are guesses and not all photographs find a place, a second run begins with
        typical focals; the one whose largest model has more photographs counts.
        """
        found = self._run(mapper, "guessed", with_typical_focals=False)
        if all(camera.has_focal for camera in self._cameras) or _most(found) == self._registrable:
            return _by_size(found)
        typical = self._run(mapper, "typical", with_typical_focals=True)
        return _by_size(max(found, typical, key=_most))

    @property
    def _cameras(self) -> list[Any]:
        """Cameras of the photographs that have tracks."""
        merged = self.export.merged
        return [camera for name, camera in merged.cameras.items() if name not in merged.unmatched]

    @property
    def _registrable(self) -> int:
        return len(self._cameras)

    def _run(self, mapper: Mapper, name: str, *, with_typical_focals: bool) -> dict[Path, int]:
        """Number of images of each model, by its folder."""
        folder = self.staging / name
        (folder / "models").mkdir(parents=True)
        # A copy: the mappers write into their database.
        database = folder / "database.db"
        shutil.copyfile(self.database, database)
        if with_typical_focals:
            self._write_typical_focals(database)
        run = self._incremental if mapper == "incremental" else self._global
        models = run(database, folder / "models")
        return {
            folder / "models" / str(index): int(model.num_reg_images())
            for index, model in models.items()
        }

    def _write_typical_focals(self, path: Path) -> None:
        numbers = camera_numbers(self.export.merged.cameras)
        with self.pycolmap.Database.open(str(path)) as database:
            for name, camera in self.export.merged.cameras.items():
                if camera.has_focal:
                    continue
                made = camera_to_pycolmap(
                    camera.camera, camera.size, identifier=numbers[name], is_known=False
                )
                made.focal_length = TYPICAL_FOCAL * max(camera.size.height, camera.size.width)
                database.update_camera(made)

    def _incremental(self, database: Path, out: Path) -> dict[int, Any]:
        settings = self.pycolmap.IncrementalPipelineOptions()
        settings.random_seed = self.seed
        settings.extract_colors = False  # COLMAP does not turn photographs as EXIF says
        settings.min_model_size = _MIN_MODEL_SIZE
        # Two photographs alone have no other tracks.
        settings.triangulation.ignore_two_view_tracks = self._registrable > 2
        settings.constant_cameras = set(self._known())
        found: dict[int, Any] = self.pycolmap.incremental_mapping(
            str(database), str(self.images), str(out), options=settings
        )
        return found

    def _global(self, database: Path, out: Path) -> dict[int, Any]:
        all_known = all(camera.is_known for camera in self._cameras)
        if not all(camera.has_focal for camera in self._cameras):
            # Focals from the fundamental matrices; without them, the mapper believes the guesses.
            self.pycolmap.calibrate_view_graph(str(database))
        settings = self.pycolmap.GlobalPipelineOptions()
        settings.random_seed = self.seed
        settings.min_model_size = _MIN_MODEL_SIZE
        adjustment = settings.mapper.bundle_adjustment
        adjustment.refine_focal_length = adjustment.refine_extra_params = not all_known
        found: dict[int, Any] = self.pycolmap.global_mapping(
            str(database), str(self.images), str(out), options=settings
        )
        if not all_known:
            for index, model in found.items():
                self._put_back_known(model, out / str(index))
        return found

    def _known(self) -> dict[int, Any]:
        """The known cameras as pycolmap's, by COLMAP's numbers."""
        cameras = self.export.merged.cameras
        numbers = camera_numbers(cameras)
        return {
            numbers[name]: camera_to_pycolmap(camera.camera, camera.size, identifier=numbers[name])
            for name, camera in cameras.items()
            if camera.is_known
        }

    def _put_back_known(self, model: Any, folder: Path) -> None:
        """Give the known cameras their intrinsics back: the global mapper refines all or none."""
        known = {number: made for number, made in self._known().items() if number in model.cameras}
        if not known:
            return
        config = self.pycolmap.BundleAdjustmentConfig()
        for image in model.reg_image_ids():
            config.add_image(image)
        for number, made in known.items():
            model.cameras[number].params = made.params
            config.set_constant_cam_intrinsics(number)
        config.fix_gauge(self.pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        options = self.pycolmap.BundleAdjustmentOptions()
        options.print_summary = False
        self.pycolmap.create_default_bundle_adjuster(options, config, model).solve()
        model.update_point_3d_errors()
        model.write(str(folder))


def _most(sizes: dict[Path, int]) -> int:
    return max(sizes.values(), default=0)


def _by_size(sizes: dict[Path, int]) -> list[Path]:
    return sorted(sizes, key=lambda folder: (-sizes[folder], int(folder.name)))
