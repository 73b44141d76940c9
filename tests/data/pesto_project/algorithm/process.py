"""The process: brightens an image and reports what it was given."""

# mypy: ignore-errors
# PESTO projects carry no types, and import modules that nobody installs.

from pesto.common.pesto import Pesto

from algorithm.input_output import Input, Output


class Process:
    """A PESTO process in dataclass style."""

    def on_start(self):
        """Count how often it was started."""
        self.starts = getattr(self, "starts", 0) + 1

    def process(self, input: Input):
        """Brighten."""
        from algorithm.gain import brighten

        input.options["touched"] = True
        report = {
            "gain": input.gain,
            "offset": input.offset,
            "label": input.label,
            "starts": self.starts,
            "profile": Pesto.get_profile(),
            "gpu": Pesto.is_profile_active("gpu"),
        }
        return Output(image=brighten(input.image, input.gain, input.offset), report=report)
