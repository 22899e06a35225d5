"""MIDI files: read with symusic, written by ourselves, so that samples can be heard without any optional package."""

from __future__ import annotations

import struct
from dataclasses import replace
from types import ModuleType

import numpy as np

from castalia.core.errors import DataError, MissingExtra
from castalia.media.music.score import Score

SUFFIXES = frozenset({".mid", ".midi"})
LARGEST = 32 << 20
MOST_NOTES = 2_000_000
MOST_QUARTERS = 1_000_000
_DRUM_CHANNEL = 9


def symusic() -> ModuleType:
    """The package that reads MIDI.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import symusic as package
    except (ImportError, OSError) as error:
        raise MissingExtra("Reading MIDI files", "music") from error
    return package


def read_midi(data: bytes, name: str) -> Score:
    """The notes of a MIDI file.

    Args:
        data: the file.
        name: what to call it in errors.

    Raises:
        DataError: it is none, or it has no notes, or absurdly many.
        MissingExtra: symusic is not installed.
    """
    package = symusic()
    if len(data) > LARGEST:
        raise DataError(f"{name}: larger than {LARGEST >> 20} MiB.")
    if not data.startswith(b"MThd"):
        raise DataError(f"{name}: not a MIDI file: it does not begin with MThd.")
    if len(data) >= 14 and data[12] & 0x80:
        raise DataError(f"{name}: its time is in frames of film (SMPTE); only quarter notes are read.")
    try:
        found = package.Score.from_midi(data)
    except Exception as error:  # symusic raises RuntimeError, ValueError and its own
        raise DataError(f"{name}: not a MIDI file that can be read ({str(error)[:200]}).") from error
    parts = []
    for number, track in enumerate(found.tracks):
        notes = track.notes.numpy()
        time = np.asarray(notes["time"], np.int64)
        table = np.empty((len(time), 7), np.int64)
        table[:, 0], table[:, 1] = time, np.maximum(np.asarray(notes["duration"], np.int64), 1)
        table[:, 2], table[:, 3] = notes["pitch"], np.clip(notes["velocity"], 1, 127)
        table[:, 4], table[:, 5], table[:, 6] = track.program, track.is_drum, number
        parts.append(table)
    table = np.concatenate(parts) if parts else np.empty((0, 7), np.int64)
    resolution = int(found.ticks_per_quarter)
    if not len(table):
        raise DataError(f"{name}: holds no notes.")
    if resolution < 1 or len(table) > MOST_NOTES or table[:, :2].sum(1).max() > MOST_QUARTERS * resolution:
        raise DataError(
            f"{name}: refused: {len(table):,} notes over {table[:, 0].max() / max(resolution, 1):,.0f} quarters."
        )
    if table[:, 0].min() < 0 or table[:, 2].min() < 0 or table[:, 2].max() > 127:
        raise DataError(f"{name}: damaged: notes outside of the piano of 128 keys, or before the beginning.")
    tempo = float(found.tempos[0].qpm) if len(found.tempos) else 120.0
    meters = [(int(m.time), int(m.numerator), int(m.denominator)) for m in found.time_signatures]
    meters = [m for m in meters if m[1] > 0 and m[2] > 0] or [(0, 4, 4)]
    kept = [m for i, m in enumerate(meters) if i == 0 or m[1:] != meters[i - 1][1:]]
    tempo = min(max(tempo, 10.0), 1000.0)
    return replace(Score.of(table, resolution, tempo), meters=((0, *kept[0][1:]), *kept[1:]))


def midi_bytes(score: Score) -> bytes:
    """A MIDI file of format 1: one track with tempo and meter, then one for each instrument of each track.

    Every note is ended, before the same one begins anew.
    """
    score = score.untangled()
    meter = score.meters[0]
    power = max(meter[2].bit_length() - 1, 0)
    head = b"\x00\xff\x51\x03" + round(6e7 / score.tempo).to_bytes(3, "big")
    head += b"\x00\xff\x58\x04" + bytes([min(meter[1], 255), power, 24, 8]) + b"\x00\xff\x2f\x00"
    tracks, channels = [head], iter([c for c in range(16) if c != _DRUM_CHANNEL] * 64)
    table = score.rows()
    for track, drum, program in sorted({(int(r[6]), int(r[5]), int(r[4])) for r in table}):
        notes = table[(table[:, 6] == track) & (table[:, 5] == drum) & (table[:, 4] == program)]
        tracks.append(_track(notes, _DRUM_CHANNEL if drum else next(channels), program))
    out = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), score.resolution)
    return out + b"".join(b"MTrk" + struct.pack(">I", len(t)) + t for t in tracks)


def _track(notes: np.ndarray, channel: int, program: int) -> bytes:
    events = [(int(n[0]), 1, 0x90 | channel, int(n[2]), int(n[3])) for n in notes]
    events += [(int(n[0] + n[1]), 0, 0x80 | channel, int(n[2]), 0) for n in notes]  # ends before beginnings
    out, now = bytearray([0, 0xC0 | channel, program]), 0
    for tick, _, status, pitch, velocity in sorted(events):
        out += _variable(tick - now) + bytes([status, pitch, velocity])
        now = tick
    return bytes(out + b"\x00\xff\x2f\x00")


def _variable(number: int) -> bytes:
    """A number in groups of seven bits, as MIDI writes times."""
    out = [number & 0x7F]
    while number := number >> 7:
        out.append(number & 0x7F | 0x80)
    return bytes(reversed(out))
