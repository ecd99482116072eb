"""A blog of one table: GET / and /posts.json, POST /posts (title, text), GET /health."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from html import escape
from socketserver import ThreadingMixIn
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIServer, make_server

import pymysql

TABLE = """create table if not exists posts (
  id int auto_increment primary key, at timestamp default current_timestamp,
  title varchar(200) not null, text text not null)"""
PAGE = """<!doctype html><meta charset=utf-8><title>Blog</title><link rel=stylesheet href=/style.css>
<h1>Blog</h1>
<form method=post action=/posts><input name=title placeholder=Title maxlength=200 required>
<textarea name=text placeholder=Text required></textarea><button>Publish</button></form>
{posts}"""
BODY_MAX = 64 * 1024


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def connect() -> pymysql.Connection:
    return pymysql.connect(
        host="db",
        user=os.environ["MARIADB_USER"],
        password=os.environ["MARIADB_PASSWORD"],
        database=os.environ["MARIADB_DATABASE"],
        charset="utf8mb4",
        autocommit=True,
        connect_timeout=5,
    )


def ask(sql: str, *values: str) -> list[dict[str, object]]:
    with connect() as connection, connection.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def posts() -> list[dict[str, object]]:
    return ask("select id, cast(at as char) as at, title, text from posts order by id desc limit 100")


def app(request: dict[str, object], start: Callable[..., object]) -> Iterable[bytes]:
    def answer(status: str, body: str, kind: str = "text/html", **headers: str) -> list[bytes]:
        start(status, [("Content-Type", f"{kind}; charset=utf-8"), *headers.items()])
        return [body.encode()]

    match request["REQUEST_METHOD"], request["PATH_INFO"]:
        case "GET", "/":
            shown = "".join(
                f"<article><h2>{escape(str(p['title']))}</h2><p>{escape(str(p['text']))}</article>"
                for p in posts()
            )
            return answer("200 OK", PAGE.format(posts=shown))
        case "GET", "/posts.json":
            return answer("200 OK", json.dumps(posts()), "application/json")
        case "POST", "/posts":
            length = min(int(str(request.get("CONTENT_LENGTH") or 0)), BODY_MAX)
            form = parse_qs(request["wsgi.input"].read(length).decode(errors="replace"))  # type: ignore[attr-defined]
            title, text = form.get("title", [""])[0][:200], form.get("text", [""])[0]
            if not (title and text):
                return answer("400 Bad Request", "A post has a title and a text.\n", "text/plain")
            ask("insert into posts (title, text) values (%s, %s)", title, text)
            return answer("303 See Other", "", Location="/")
        case "GET", "/health":
            ask("select 1")
            return answer("200 OK", "ok\n", "text/plain")
        case _:
            return answer("404 Not Found", "There is nothing here.\n", "text/plain")


if __name__ == "__main__":
    # The first process of a container ignores SIGTERM unless it says otherwise.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ask(TABLE)
    make_server("0.0.0.0", 8000, app, server_class=Server).serve_forever()
