"""Sets of proteins that have a name, and the one that is built in."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace

from castalia.core.data import Dataset
from castalia.core.spec import Spec
from castalia.core.specs.protein import ProteinSpec
from castalia.media.protein.folds import COUNTS, NAME, folds
from castalia.media.protein.read import ProteinOptions, open_proteins
from castalia.media.sets import DataFile, NamedData, Progress, find

SMALL = "small-proteins"

HELD_OUT = frozenset(
    """
    1AIE_A 1B0N_B 1B0X_A 1B9W_A 1C5E_A 1C94_A 1CQ4_B 1CY5_A 1DSX_A 1EGP_A 1F7Z_I 1FS1_A 1FSE_A 1GL2_C 1GXU_A
    1GYX_A 1IQ5_B 1K9U_A 1KD8_B 1L5P_A 1LJ2_C 1LNI_A 1LU0_A 1MN8_A 1NEG_A 1O9Y_A 1Q7L_B 1R4A_E 1SMX_A 1TFK_A
    1TH7_A 1UCR_A 1WFB_A 2B9D_A 2BLF_B 2C4F_T 2CO5_A 2FCW_B 2FU4_A 2FYU_K 2G81_I 2HDZ_A 2HNT_E 2LTN_B 2ODK_A
    2Q8V_A 2QFA_B 2QKH_B 2RCZ_A 2RKL_A 2V1R_A 2W83_C 2WX3_A 2X1B_A 2XEU_A 2XQU_A 2Y5P_A 2YGG_A 2YZT_A 3A1Y_A
    3AKO_B 3B08_B 3CQX_C 3DGP_A 3DSO_A 3DY0_B 3ECH_C 3GOE_A 3H8A_E 3H8K_B 3HTU_A 3I5R_A 3IUF_A 3JTP_A 3LK2_T
    3LK4_0 3LU9_C 3MB2_B 3MCB_A 3MHP_C 3MQP_B 3O6Q_B 3OMY_A 3ONJ_A 3P8D_A 3PH0_C 3PUC_A 3QII_A 3R0L_A 3R27_A
    3R85_E 3RM2_L 3S64_A 3S90_C 3SJH_B 3SNY_A 3SSB_I 3T7L_A 3TZ1_B 3U5V_A 3U91_A 3WCQ_A 4A3N_A 4A5X_A 4B8N_A
    4BB2_B 4BVW_A 4DJG_A 4E45_B 4G6F_F 4G94_A 4HAE_A 4HKG_A 4ICV_A 4ID8_A 4KHA_B 4KRW_A 4LVO_P 4MIT_E 4N3Y_A
    4NL9_C 4OGQ_G 4OW1_A 4OWF_A 4PCW_A 4PND_A 4Q2L_A 4REY_B 4V0V_B 4WWM_A 4WXA_A 4WZX_A 4X9Z_A 4XKL_B 4XUW_A
    5ANR_C 5B1A_J 5C2N_A 5D50_E 5DS2_A 5E8D_A 5FCN_A 5FVL_C 5G1X_B 5H5N_A 5HE9_E 5I7Z_A 5IKC_M 5J0K_A 5JBT_Y
    5JNO_B 5K26_A 5KDO_G 5MNJ_C 5MSM_C 5MXY_A 5N41_A 5N5F_A 5N88_D 5NB8_A 5O99_A 5OI7_A 5T0F_B 5TIS_R 5U96_A
    5UXX_B 5V2C_I 5W5C_E 5WBX_B 5WD9_A 5WXH_A 5X57_A 5XAD_C 5XM3_B 5YIU_A 5YL9_B 5ZNG_C 6AL9_A 6ANW_A 6ATW_A
    6AY8_A 6B9X_D 6C90_B 6CQG_A 6CSL_A 6E4N_A 6E6N_A 6EBY_B 6F0F_B 6H77_Q 6HLN_B 6HM8_B 6ILD_C 6IUA_B 6IUH_C
    6MRR_A 6NX5_A 6RLX_B 6SID_A 6U2U_A
    """.split()  # noqa: SIM905
)
"""The 200 chains on which Greener & Jones validated (``cgdms/datasets/val.txt`` of https://github.com/psipred/cgdms)."""

SETS: Mapping[str, NamedData] = {
    SMALL: NamedData(
        "chains of 20 to 100 residues of the Protein Data Bank: backbones, centroids of side chains; no alignments",
        "MIT (the files); the structures are in the public domain",
        (),
        {"train": 2004, "test": 200},
        {"all": (DataFile("chains.zip", "64bfb4435134c1a6e083fa72b69f8a37b6b4863099a3cbda6d69475b07a98828"),)},
        "the folder cgdms/protein_data/train_val of https://github.com/psipred/cgdms can be opened by its path",
    ),
    NAME: NamedData(
        "helices, hairpins and loops of 8 to 30 residues made by a rule from their sequences",
        "none needed: computed",
        (),
        COUNTS,
        {},
    ),
}


def open_set(name: str, options: ProteinOptions, split: str, like: Spec | None, progress: Progress | None) -> Dataset:
    """Open a named set."""
    assert like is None or isinstance(like, ProteinSpec)
    if name == NAME:
        if options.kind == "structure":
            return folds(split, options, like)
        return _sequences(split, options, like)
    entry = SETS[name]
    path = find(name, entry, entry.files["all"][0], progress)
    with zipfile.ZipFile(path) as archive:  # its contents are known
        names = frozenset(info.filename.removesuffix(".txt") for info in archive.infolist())
    within = names & HELD_OUT if split == "test" else names - HELD_OUT
    return open_proteins(path, options, like=like, name=name, progress=progress, within=within)


def _sequences(split: str, options: ProteinOptions, like: ProteinSpec | None) -> Dataset:
    from castalia.media.protein.chains import Sequences

    whole = folds(split, replace(options, kind="structure", sequences=1))
    return Sequences(whole.chains, like or ProteinSpec("sequence", options.most), name=NAME)
