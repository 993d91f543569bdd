"""A headless Chromium, driven through two pipes by its DevTools protocol: pages of files, keys, clicks, pictures."""

import base64
import itertools
import json
import os
import select
import shlex
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60  # without an answer


def found():
    """The program, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One tab of a browser that keeps what it must in `folder`."""

    def __init__(self, folder):
        ours, theirs = os.pipe(), os.pipe()  # to the browser, from it
        flags = ["headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", "mute-audio",
                 "disable-extensions", "disable-background-networking", "remote-debugging-pipe",
                 f"user-data-dir={folder}"]  # fmt: skip
        arguments = [found(), *(f"--{flag}" for flag in flags), "about:blank"]
        redirected = f"exec {shlex.join(arguments)} 3<&{ours[0]} 4>&{theirs[1]}"  # where it reads and writes
        shell = shutil.which("bash") or "/bin/sh"  # others know descriptors of one digit alone
        self.process = subprocess.Popen([shell, "-c", redirected], pass_fds=(ours[0], theirs[1]),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(ours[0])
        os.close(theirs[1])
        self._to, self._from, self._rest = ours[1], theirs[0], b""
        self._numbers, self._session, self.events = itertools.count(1), None, []
        try:
            target = self("Target.createTarget", url="about:blank")["targetId"]
            self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network"):
                self(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def close(self):
        os.close(self._to)
        self.process.kill()
        self.process.wait()
        os.close(self._from)

    def _message(self):
        end = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0, end - time.monotonic()))
            more = os.read(self._from, 1 << 20) if ready else b""
            if not more:
                raise RuntimeError("the browser does not answer")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def __call__(self, method, **parameters):
        """A command of the protocol, and its result."""
        number = next(self._numbers)
        session = {"sessionId": self._session} if self._session else {}
        os.write(
            self._to, json.dumps({"id": number, "method": method, "params": parameters, **session}).encode() + b"\0"
        )
        while (message := self._message()).get("id") != number:
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def open(self, path, width=1000, height=800, dark=False):
        """Show a file; it is loaded when this returns."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self("Page.navigate", url=path.absolute().as_uri())
        while self("Runtime.evaluate", expression="document.readyState")["result"]["value"] != "complete":
            time.sleep(0.01)

    def problems(self):
        """What the page said of errors, and what it asked of the network."""
        said = [e["params"] for e in self.events if e["method"] == "Runtime.exceptionThrown"]
        sent = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return said + [url for url in sent if not url.startswith("file:")]

    def value(self, expression):
        """Of JavaScript in the page, as JSON has it."""
        result = self("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def click(self, selector):
        """In the middle of an element."""
        place = self.value(
            f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}}); "
            "const b = e.getBoundingClientRect(); return {x: b.x + b.width / 2, y: b.y + b.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def key(self, name, text=""):
        """Pressed and let go, by whatever has the focus."""
        code = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32}.get(name, 0)
        self("Input.dispatchKeyEvent", type="keyDown", key=name, windowsVirtualKeyCode=code, text=text)
        self("Input.dispatchKeyEvent", type="keyUp", key=name, windowsVirtualKeyCode=code)

    def picture(self, whole=False):
        """A screenshot, as the bytes of a PNG."""
        return base64.b64decode(self("Page.captureScreenshot", captureBeyondViewport=whole)["data"])
