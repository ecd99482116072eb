"""Sends every message back, text or bytes, to 1 MiB."""

import asyncio
import signal

import websockets


async def echo(connection: websockets.WebSocketServerProtocol) -> None:
    async for message in connection:
        await connection.send(message)


async def main() -> None:
    stop = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set_result, None)
    async with websockets.serve(echo, "0.0.0.0", 8000):
        await stop


if __name__ == "__main__":
    asyncio.run(main())
