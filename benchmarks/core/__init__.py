"""The typed core: samples, predictions, protocols, scores."""
