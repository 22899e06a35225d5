"""The language server with a real editor: Neovim without a screen, which is told nothing but the command."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from castalia import api
from castalia.serving.engine import Engine
from castalia.serving.lsp import LanguageServer
from castalia.serving.worker import Worker

NVIM = shutil.which("nvim")

LUA = """
local function wait(ready) assert(vim.wait(60000, ready, 20), "nobody answers") end
local number = vim.lsp.start_client({ name = "castalia", cmd = vim.fn.json_decode(vim.env.SERVER), root_dir = "." })
assert(number, "the server does not start")
vim.cmd("edit notes.txt")
assert(vim.lsp.buf_attach_client(0, number))
local client = vim.lsp.get_client_by_id(number)
wait(function() return client.initialized and client.server_capabilities ~= nil end)
local found = { offers = client.server_capabilities.completionProvider ~= nil, texts = {} }
for _, typed in ipairs({ "abcab", "abcabcä" }) do
  vim.api.nvim_buf_set_lines(0, 0, -1, false, { "abc", typed })
  vim.api.nvim_win_set_cursor(0, { 2, #typed })
  local place = { textDocument = vim.lsp.util.make_text_document_params(), position = { line = 1, character = vim.str_utfindex(typed) } }
  local answers, problem = vim.lsp.buf_request_sync(0, "textDocument/completion", place, 60000)
  assert(answers, problem)
  local answer = answers[number]
  assert(answer and answer.result, vim.inspect(answers))
  local item = answer.result.items[1]
  if item then  -- as the editor itself would insert it
    vim.lsp.util.apply_text_edits({ item.textEdit }, 0, client.offset_encoding)
  end
  table.insert(found.texts, vim.api.nvim_buf_get_lines(0, 0, -1, false))
end
vim.lsp.stop_client(number)
wait(function() return client.is_stopped() end)
local file = io.open("found.json", "w")
file:write(vim.fn.json_encode(found))
file:close()
vim.cmd("qall!")
"""


@pytest.mark.skipif(NVIM is None, reason="Neovim is not installed: on Debian, apt-get install neovim")
def test_neovim_types_with_it(tmp_path: Path) -> None:
    """Its own client starts the server, sends what is typed, and puts in what it is told, in the middle of Unicode."""
    (tmp_path / "text.txt").write_text("abc\n" * 2000)
    settings = ["data.options.tokens=bytes", "data.options.length=32"]
    run = api.train(
        "gpt2",
        str(tmp_path / "text.txt"),
        tmp_path / "run",
        recipe="gpt2-tiny",
        steps=60,
        quiet=True,
        settings=settings,
    )
    server = [sys.executable, "-m", "castalia", "serve", str(run.path), "--lsp"]
    (tmp_path / "try.lua").write_text(LUA)
    assert NVIM is not None
    told = subprocess.run(
        [NVIM, "--headless", "--clean", "-n", "-c", "luafile try.lua"],
        cwd=tmp_path,
        env={**os.environ, "SERVER": json.dumps(server), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (tmp_path / "found.json").is_file(), told.stderr[-2000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["offers"]
    engine = Engine(run.model()[0], rows=1)  # type: ignore[arg-type]
    asked = LanguageServer(Worker(engine, 1), io.BytesIO(), io.BytesIO())  # neither is started
    for typed, lines in zip(("abcab", "abcabcä"), found["texts"], strict=True):
        (answer,) = engine.run([asked.request(f"abc\n{typed}", "")])
        assert "\n".join(lines).rstrip("\n") == f"abc\n{typed}{answer.text}".rstrip("\n")
    assert len(found["texts"][0][1]) > len("abcab"), "something was put in"
