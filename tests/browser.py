"""Pages as a reader meets them: opened in headless Chromium, where a script looks around."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IN_A_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH to open a page with")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
CATCH = "<script>window.failures = []; window.onerror = (m) => window.failures.push(String(m));</script>"
COLOURS = """
const colours = (canvas) => {
  if (!canvas.width) return 0;
  const pen = canvas.getContext("2d"), seen = new Set();
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  for (let k = 0; k < pixels.length; k += 4) seen.add(pixels.slice(k, k + 4).join());
  return seen.size;
};"""


def shown(file: Path) -> dict[str, dict]:
    """The crystals of a gallery by id, each with its facts; it asks the network for nothing."""
    page = file.read_text()
    assert "default-src 'none'" in page
    assert "://" not in page
    data = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert data
    return {crystal["id"]: crystal for crystal in json.loads(data[1])["sets"]["crystals"]["crystals"]}


def opened(page: str, script: str, folder: Path, size: str = "1300,2400") -> dict:
    """What a script in a page fills `found` with, half a second after the page's own; asks for no request.

    `later` is a list of functions called after that half second; `found.errors` are the page's errors.
    """
    file, log = folder / "probed.html", folder / "net.json"
    probe = f"""
<script>{{
const found = {{ errors: window.failures }}, later = [];
{COLOURS}
{script}
setTimeout(() => {{
  for (const look of later) look();
  found.requests = performance.getEntriesByType("resource").map((e) => e.name.slice(0, 60));
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
}}, 500);
}}</script></body>"""
    assert "<style>" in page
    file.write_text(page.replace("<style>", CATCH + "<style>", 1).replace("</body>", probe, 1))
    command = [
        str(CHROMIUM),
        *FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--log-net-log={log}",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
        f"--window-size={size}",
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    text = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # The browser's own calls home (which fail here) are the only ones in its log.
    hosts = set(re.findall(r'"(?:url|original_url)":\s*"(?:https?|wss?)://([^/"]*)', log.read_text()))
    assert not [host for host in hosts if not host.endswith((".google.com", ".googleapis.com"))]
    found = json.loads(unescape(text.group(1)))
    assert not [name for name in found["requests"] if not name.startswith("data:")]
    return found
