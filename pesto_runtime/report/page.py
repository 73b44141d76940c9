from __future__ import annotations
def write_report(path, data): path.write_text("<html></html>")
