"""Keys of the slow link: for their owner alone, never overwritten, and refused when unfit."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zmq
import zmq.auth
from hypothesis import given
from hypothesis import strategies as st

from vampires.commands.zmq_keys import main
from vampires.link_keys import (
    KeyFileError,
    load_public,
    load_public_keys,
    load_secret,
    make_keys,
)

BAD_NAMES = ("", ".", "..", ".hidden", "a/b", "../a", "/a", "a b", "a\n", "a\0", "ä", "a" * 80)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "new" / "keys"


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest):
    before = os.umask(request.param)
    yield
    os.umask(before)


# -- making -----------------------------------------------------------------------------------


def test_keys_are_a_pair_that_pyzmq_loads(folder):
    files, public = make_keys(folder, "scexao5")
    assert files.public == folder / "scexao5.key"
    assert files.secret == folder / "scexao5.key_secret"
    pair = load_secret(files.secret)
    assert load_public(files.public) == public == pair.public == zmq.curve_public(pair.secret)
    assert zmq.auth.load_certificate(files.public) == (public, None)
    assert zmq.auth.load_certificate(files.secret) == (public, pair.secret)
    assert zmq.auth.load_certificates(folder) == {public: True}


def test_keys_that_pyzmq_made_are_loaded(tmp_path):
    public, secret = map(Path, zmq.auth.create_certificates(tmp_path, "camera", {"A": "b"}))
    secret.chmod(0o600)
    assert load_public(public) == load_secret(secret).public


def test_the_secret_key_is_for_its_owner_alone(folder, umask):
    files, _ = make_keys(folder, "a")
    assert (mode(files.public), mode(files.secret)) == (0o644, 0o600)
    assert mode(folder) & 0o077 == 0
    make_keys(folder, "a", force=True)
    assert (mode(files.public), mode(files.secret)) == (0o644, 0o600)


def test_each_pair_is_another(folder):
    assert len({make_keys(folder, f"a{i}")[1] for i in range(9)}) == 9


@pytest.mark.parametrize("suffix", [".key", ".key_secret"])
def test_files_that_are_there_are_not_overwritten(folder, suffix):
    folder.mkdir(parents=True)
    there = folder / f"a{suffix}"
    there.write_text("precious")
    with pytest.raises(KeyFileError, match="--force"):
        make_keys(folder, "a")
    assert there.read_text() == "precious"
    assert os.listdir(folder) == [there.name]
    there.unlink()
    there.symlink_to("nowhere")
    with pytest.raises(KeyFileError, match="--force"):
        make_keys(folder, "a")


def test_force_makes_new_files_and_who_has_the_old_open_keeps_the_old_key(folder):
    files, first = make_keys(folder, "a")
    files.secret.chmod(0o644)  # as a careless copy would have it
    with open(files.secret) as held:
        _, second = make_keys(folder, "a", force=True)
        assert first.decode() in held.read()
    assert load_public(files.public) == load_secret(files.secret).public == second != first
    assert mode(files.secret) == 0o600
    assert sorted(os.listdir(folder)) == ["a.key", "a.key_secret"]


def test_force_replaces_a_link_and_not_what_it_leads_to(folder, tmp_path):
    folder.mkdir(parents=True)
    other = tmp_path / "other"
    other.write_text("precious")
    (folder / "a.key_secret").symlink_to(other)
    files, _ = make_keys(folder, "a", force=True)
    assert other.read_text() == "precious" and not files.secret.is_symlink()


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_a_name_that_could_lead_elsewhere_is_refused(folder, name):
    with pytest.raises(KeyFileError, match="cannot be the name of a key"):
        make_keys(folder, name)
    assert not folder.exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="cannot make the key a"):
        make_keys(tmp_path / "file", "a")


# -- loading ----------------------------------------------------------------------------------


def test_a_secret_key_that_others_may_read_is_refused(folder):
    files, _ = make_keys(folder, "a")
    for bits in (0o640, 0o604, 0o620, 0o601, 0o666):
        files.secret.chmod(bits)
        with pytest.raises(KeyFileError, match=f"mode {bits:o}.*chmod 600"):
            load_secret(files.secret)
    files.secret.chmod(0o400)
    load_secret(files.secret)


def test_the_wrong_one_of_the_two_files_is_refused(folder):
    files, _ = make_keys(folder, "a")
    with pytest.raises(KeyFileError, match="holds a secret key"):
        load_public(files.secret)
    files.public.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"no secret key.*NAME\.key_secret"):
        load_secret(files.public)


def test_keys_of_two_pairs_are_no_pair(folder):
    files, _ = make_keys(folder, "a")
    _, other = make_keys(folder, "b")
    text = files.secret.read_text()
    files.secret.write_text(
        text.replace(load_secret(files.secret).public.decode(), other.decode())
    )
    with pytest.raises(KeyFileError, match="no pair"):
        load_secret(files.secret)


PUBLIC = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


@pytest.mark.parametrize(
    "text",
    [
        *("", "\0" * 99, "hello", "curve\n", "public-key", "public-key =", 'public-key = ""'),
        *(f'public-key = "{key}"' for key in (PUBLIC[1:], PUBLIC + "x", PUBLIC[:39] + " ")),
        *(f'public-key = "{character * 40}"' for character in "#~é"),
        *(
            f'{before} = "{PUBLIC}"'
            for before in ("# public-key", "x public-key", "secret-key")
        ),
        "x" * 100_000 + f'\npublic-key = "{PUBLIC}"',
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_file_that_holds_no_key_is_refused(tmp_path, text):
    path = tmp_path / "a.key"
    path.write_text(text)
    path.chmod(0o600)
    for load in (load_public, load_public_keys, load_secret):
        with pytest.raises(KeyFileError) as refused:
            load(path)
        assert str(path) in str(refused.value) and "\n" not in str(refused.value)


@given(st.binary(max_size=200))
def test_no_bytes_of_a_key_file_do_more_than_be_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.key"
    path.write_bytes(b'public-key = "' + content)
    path.chmod(0o600)
    for load in (load_public, load_secret):
        with pytest.raises(KeyFileError):
            load(path)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (
        tmp_path / "absent",
        tmp_path / "folder",
        tmp_path / "pipe",
        Path("/dev/zero"),
    ):
        for load in (load_public, load_secret):
            with pytest.raises(KeyFileError, match=str(path)):
                load(path)
    with pytest.raises(KeyFileError, match="expected a regular file"):
        load_secret(tmp_path / "pipe")


def test_the_public_keys_of_a_folder_are_those_of_its_key_files(folder):
    made = frozenset(make_keys(folder, name)[1] for name in "abc")
    (folder / "notes.txt").write_text("no key")
    assert load_public_keys(folder) == made
    assert load_public_keys(folder / "a.key") < made


def test_a_folder_without_keys_or_with_a_bad_one_is_refused(tmp_path):
    with pytest.raises(KeyFileError, match="copy the public keys"):
        load_public_keys(tmp_path)
    make_keys(tmp_path, "a")
    (tmp_path / "b.key").write_text("damaged")
    with pytest.raises(KeyFileError, match=r"b\.key is not a key file"):
        load_public_keys(tmp_path)


def test_a_pair_does_not_show_its_secret(folder):
    pair = load_secret(make_keys(folder, "a")[0].secret)
    assert pair.secret.decode() not in repr(pair)


# -- the command ------------------------------------------------------------------------------


def test_the_command_makes_keys_and_tells_where(folder, capsys):
    assert main(["--dir", str(folder), "camera", "viewer"]) == 0
    out = capsys.readouterr().out
    assert sorted(os.listdir(folder)) == [
        *("camera.key", "camera.key_secret", "viewer.key", "viewer.key_secret")
    ]
    assert [line.split(":")[0] for line in out.splitlines()] == ["camera", "viewer"]
    assert load_secret(folder / "camera.key_secret").secret.decode() not in out


def test_the_command_tells_json(folder, capsys):
    assert main(["--dir", str(folder), "a", "--json"]) == 0
    (made,) = json.loads(capsys.readouterr().out)
    assert load_public(Path(made["public"])).decode() == made["public_key"]
    assert (made["name"], made["secret"]) == ("a", str(folder / "a.key_secret"))


def test_the_command_keeps_keys_beside_the_configuration(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["a"]) == 0
    assert (tmp_path / "vampires" / "keys" / "a.key_secret").exists()
    capsys.readouterr()


def test_the_command_makes_all_keys_or_none(folder, capsys):
    make_keys(folder, "b")
    for names in (["a", "b"], ["a", "../c"], ["a", "c", "a"]):
        assert main(["--dir", str(folder), *names]) == 2
        assert sorted(os.listdir(folder)) == ["b.key", "b.key_secret"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("vampires-zmq-keys: ") for line in lines)
    assert main(["--dir", str(folder), "--force", "a", "b"]) == 0


def test_the_command_refuses_wrong_usage_in_a_line(capsys):
    assert main([]) == 2
    assert "vampires-zmq-keys --help" in capsys.readouterr().err


def test_help_loads_neither_zmq_nor_numpy():
    source = (
        "import sys\n"
        "from vampires.commands import zmq_keys\n"
        "try: zmq_keys.main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'zmq', 'numpy'} & set(sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", source], check=True, timeout=60, capture_output=True, text=True
    )
    assert "example:" in run.stdout
