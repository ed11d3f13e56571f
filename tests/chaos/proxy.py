"""Between the parts and a store: a TCP port on loopback that can cut, slow or swallow what passes."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from threading import Thread
from typing import Any, Literal

Mode = Literal["open", "slow", "silent"]

CHUNK_BYTES = 65_536
SLOW_SECONDS = 0.15  # for every piece, in each direction
SILENT_LOOK_SECONDS = 0.05


class Proxy:
    """Passes bytes to the unix socket `target`, in a thread of its own, until `close`."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._mode: Mode = "open"
        self._replies_to_cut = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name=f"proxy of {target.name}", daemon=True)
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result(10)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def set_mode(self, mode: Mode) -> None:
        """Pass everything at once, slowly, or not until the mode is another."""
        self._mode = mode

    def cut(self, replies: int) -> None:
        """Pass only the first half of each of the next `replies` replies, and end those connections."""
        self._replies_to_cut = replies

    def cut_all(self) -> None:
        """End all connections now, whatever is on its way."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def close(self) -> None:
        """Let go of everything."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _abort_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        for task in self._pumps:
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            store_reader, store_writer = await asyncio.open_unix_connection(str(self._target))
        except OSError:
            writer.transport.abort()  # nobody listens there either
            return
        both = {writer, store_writer}
        self._open |= both
        for pump in (
            self._pump(reader, store_writer, is_reply=False),
            self._pump(store_reader, writer, is_reply=True),
        ):
            task = asyncio.ensure_future(self._until_one_ends(pump, both))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _until_one_ends(self, pump: Coroutine[Any, Any, None], both: set[asyncio.StreamWriter]) -> None:
        try:
            await pump
        except OSError:
            pass
        finally:
            for writer in both:
                writer.transport.abort()
            self._open -= both

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool
    ) -> None:
        while piece := await reader.read(CHUNK_BYTES):
            while self._mode == "silent":
                await asyncio.sleep(SILENT_LOOK_SECONDS)
            if self._mode == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            if is_reply and self._replies_to_cut > 0:
                self._replies_to_cut -= 1
                writer.write(piece[: len(piece) // 2])
                await writer.drain()
                return
            writer.write(piece)
            await writer.drain()
