"""Draw the dashboards as pictures, with Grafana's own components in a browser, from answers that Prometheus gave.

    XRAY_KEEP_ANSWERS=FOLDER pytest tests/cluster/test_live_metrics.py   # leaves FOLDER/answers.json
    npm --prefix grafana/picture install --ignore-scripts
    python -m grafana.picture.draw FOLDER/answers.json docs/dashboards

Needs npm and Chromium. It is no picture of a Grafana server: there is none here. Version 11.6 of the components draws,
later ones cannot be installed from npm alone.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
BOARDS = HERE.parent / "dashboards"
ROW_PX, WIDTH_PX = 38, 1530
BUNDLE = ["--bundle", "--log-level=error", "--define:process.env.NODE_ENV='production'", "--define:global=window"]
FILES = ["--loader:.svg=text", "--loader:.woff2=dataurl", "--loader:.ttf=empty"]
BROWSER = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css">
<style>* {{ box-sizing: border-box }} ul {{ margin: 0; padding: 0 }}
body {{ margin: 0; padding: 12px; font: 13px Helvetica, Arial, sans-serif; background: #f4f5f5 }}</style>
<div id="root"></div><script>var DATA = {data};</script><script src="page.js"></script>"""


def main(answers: Path, out: Path) -> None:
    """One small PNG for each dashboard."""
    out.mkdir(parents=True, exist_ok=True)
    known = json.loads(answers.read_text())
    with tempfile.TemporaryDirectory() as folder:
        bundler = HERE / "node_modules" / ".bin" / "esbuild"
        page = Path(folder) / "page.js"
        subprocess.run([bundler, HERE / "page.tsx", f"--outfile={page}", *BUNDLE, *FILES], check=True)
        for file in sorted(BOARDS.glob("*.json")):
            draw(json.loads(file.read_text()), known, Path(folder), out / f"{file.stem}.png")


def draw(board: dict, known: dict, folder: Path, picture: Path) -> None:
    """Take a picture of one dashboard, in few colours and at 60 % of its size."""
    page = folder / "page.html"
    data = json.dumps({"board": board, **known}).replace("</", "<\\/")
    page.write_text(PAGE.format(data=data), encoding="utf-8")
    rows = max(panel["gridPos"].get("y", 0) + panel["gridPos"]["h"] for panel in board["panels"])
    size = f"--window-size={WIDTH_PX},{rows * ROW_PX + 70}"
    profile = f"--user-data-dir={folder}/profile"
    subprocess.run(
        [*BROWSER, profile, "--virtual-time-budget=15000", size, f"--screenshot={picture.resolve()}", page.as_uri()],
        check=True,
        capture_output=True,
        timeout=300,
    )
    with Image.open(picture) as taken:
        small = taken.convert("RGB").resize((taken.width * 6 // 10, taken.height * 6 // 10), Image.Resampling.LANCZOS)
        small.quantize(96, Image.Quantize.MAXCOVERAGE).save(picture, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
