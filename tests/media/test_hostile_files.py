"""Files that the fuzzer found (``torture/readers.py``): each ended in another way than with a clear error."""

from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from castalia.core.errors import DataError
from castalia.media.image.arrays import read_npy, read_npz
from castalia.media.named import open_data
from castalia.media.points.files import is_points, read_array

HEADERS = ("{" * 500, "[" * 5000, "1" * 9000, "{'descr': '|u1'}", "__import__('os')", "{'a': (", "9**9**9")


DAMAGED = (
    "c-rk&TWlLe6rJ5}R?gcAnbmG(72_nUL`su552utswQI-D=GDYa6FX3;>-A>s;I&<^QzwLnR4VaGr62@Sr3g`}>IapIcnc8_NId!x"
    "^@AdTDrh1^8}ZYE3PK1(*%{l3(?lwKlaY7t%$&LB%$>Q{_ORf0LJGb{!E@9ABq68<V1az3i~!)d;UQmn$?g&WK)KZG@tf8{P(R<Y"
    "kY=x6Z~V?QmnDxdI<rVz1YNhm-zRRoSo`^kb^e*tt2f(S%dK;2yKFC7Arto=@K;d3Uh8zcZ~L>6O%BzE`)i6br@`#%?&GlX$sgWi"
    "_sl^re9Hb%&EoR+wdcsV;|1lXuB-Qu?}p)_Yirj7Gs9=!B2q`lm)Fj>cNPaPx4!hi^L3|`tB0;EvIL>N1CBP@Dn2?Bcirx~K6u_Z"
    "@cPo*_kF`R-x?quoC+`eWeL7|<4fz6Plf8o8=0ryI3_xOA(y^d`%xOze;@5W9K5+!>+-Hd6Mu9}{dV%hF=Z?@*lmUfq@E$q1@Y(!"
    "2w*j2njj6W=0n?Dpkbce?tswqe>@;|=Qs+FqpHdr6x&hcG)d6FEU`V%kuR{yeWfPQqNbIWq-+?O@HXjHS^%?!gKenoux`LKh}w#`"
    "ff|vscXG3qJi=P?YZ=h6&1|6(LF}UQLD0D%kcW(3A@ovAp&H0;3W88rLdG;Dby*s6SDm?IF4hTH+E5~@E<+lagQBP|YbvAwEUPEk"
    "qR?zwHL`swDW@a#V8DiAp%568LuxDsrq!8r4rFM~#trbm2FtikKwG(nENPYuk_^o(l`~(I^Oq>zvQxo36@0e}=9*AZK@yda)imAA"
    "#WIfOTxK4d3%4d3&QzRd7YOD(f}gM8FO}b|mbZ$Cn>DDcMlS6!{W8IPP4J&p@+T|*TRCqLYos~;&S<hlg@v9am<57=rHcR7T3F6o"
    "_e^tnBIe^NhUP8IDq6;tMy53_8rLReMP<9^9MSk>!m-~z=a^LG^mIx!@Bl}KdvRIEa}PTdIqhh&JHiRgapVcJ0k%x=`wx!q&wgvL"
    "pHMBRxinD_gb^Xz`URmw5H-Oo2%6y5@SG@a!ZXPBtmC~}Zk%VqxP+{TEyBe?OoUz@go|C09-E%f_eBpzQGX&94EUXjKK7V2mC)4L"
    "J|j5Z7Yn&1m(*)SL%KIT5g0^kLy|re3A-gja`!zNYEz<tfb;&zKr5DaBWhp7InfqQhV-x=93P4a0+JRDgb%K7Qj}2WI5t0?46g4l"
    "+i*N#-&jXDJMKX1m0|ORG)AP6T#yAvXZoYAZzdAd$FQCoOKO6c$t^|gFh&x2eUBfXpSGbd<(beW<Q&9gXxtm0K(qZG<Qn`p`&WG4"
    "Rv8aHINlyirlI@o&E3<;hEq=ub`moi_qm}TRRjK*vf+Ypz}k~?>e#fJ-m4^&d*xIrk+C0FQ${oqx3{^PTbrF6`e9lBfDg<BA2$Cm"
    "{{xdNHPZ"
)
"""A Parquet file of pictures whose statistics of sizes do not fit its schema; packed, base85."""


def npy(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + bytes(64)


@pytest.mark.parametrize("header", HEADERS)
def test_headers_that_are_none(header: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(npy(header))
    assert not is_points(path)
    for read in (lambda: read_npy(path, 1 << 20), lambda: read_array(path), lambda: open_data(str(path))):
        with pytest.raises(DataError, match=r"a\.npy") as caught:
            read()
        assert len(str(caught.value)) < 500


def test_an_entry_of_an_npz_that_is_no_array(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.savez(out, x=np.zeros((2, 4, 4), np.uint8))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("readme.txt", "not an array")
        archive.writestr("y.npy", b"not an array either")
    (tmp_path / "a.npz").write_bytes(out.getvalue())
    assert read_npz(tmp_path / "a.npz", None, 1 << 20).pixels.shape == (2, 4, 4, 1)


def test_an_entry_of_a_zip_without_a_name(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.png", b"x")
    (tmp_path / "a.zip").write_bytes(out.getvalue().replace(b"a.png", b"\0.png"))  # names end at a zero byte
    with pytest.raises(DataError, match="points outside the archive"):
        open_data(str(tmp_path / "a.zip"))


@pytest.mark.parametrize("name", ["../" + "x" * 100_000, "x" * 100_000])
def test_endless_names_are_cut_in_errors(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": name}))
    with pytest.raises(DataError, match=r"metadata\.jsonl") as caught:
        open_data(str(tmp_path))
    assert len(str(caught.value)) < 1000


def test_damaged_metadata_of_a_parquet_column(tmp_path: Path) -> None:
    """Asked for the metadata of this column, pyarrow 26 ends the process: nobody may ask."""
    pytest.importorskip("pyarrow")
    data = zlib.decompress(base64.b85decode(DAMAGED))
    (tmp_path / "a.parquet").write_bytes(data)
    code = "import sys; from castalia.media.named import open_data; open_data(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.parquet")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr[-500:]
    assert "DataError" in done.stderr
