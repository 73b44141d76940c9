"""A process that does next to nothing, so that what is measured is the service."""

# mypy: ignore-errors
# PESTO projects carry no types.


class Process:
    """Gives a number back, and an image inverted."""

    def process(self, number=None, image=None):
        """Invert the image where there is one."""
        if image is None:
            return {"number": number}
        return {"image": ~image}
