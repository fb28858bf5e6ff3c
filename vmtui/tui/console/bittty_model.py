"""The terminal that a guest sees: what bittty offers, less what a guest has no business with."""

from __future__ import annotations

import dataclasses

from bittty import XTERM
from bittty import mode_profiles as supported

# What tmux and the Linux console understand. Not in it: page and window sizes, printing, answerback, downloads of
# fonts and keys, rectangles (they cost a loop over all cells for ten bytes), and reports that echo what was sent.
OPERATIONS = frozenset({
    "C0_BEL", "C0_BS", "C0_CR", "C0_CRLF", "C0_DEL", "C0_FF", "C0_HT", "C0_LF", "C0_SI", "C0_SO", "C0_VT", "CBT",
    "CHA", "CHT", "CNL", "CPL", "CPR", "CUB", "CUD", "CUF", "CUP", "CUU", "DA1", "DA2", "DCH", "DECALN", "DECKPAM",
    "DECKPNM", "DECRQM", "DECRST", "DECSCUSR", "DECSET", "DECSTBM", "DECSTR", "DL", "DSR", "ECH", "ED", "EL", "HPA",
    "HPB", "HPR", "HTS", "HVP", "ICH", "IL", "IND", "NEL", "PRINT", "REP", "RESTORE", "RI", "RIS", "RM", "SAVE",
    "SCS_G0", "SCS_G1", "SD", "SGR", "SM", "SU", "TBC", "VPA", "VPB", "VPR", "XTRESTORE", "XTSAVE",
})  # fmt: skip
MODES = supported.TMUX_MODE_CAPABILITIES | {
    supported.ANSI_NEWLINE,
    supported.DEC_BACKARROW,
    supported.DEC_REVERSE_SCREEN,
    supported.XTERM_MOUSE_X10,
    supported.XTERM_SAVE_CURSOR_1048,
    supported.URXVT_MOUSE,
}
MODEL = dataclasses.replace(
    XTERM,
    name="vmtui",
    da1_response="\x1b[?62;22c",  # a VT220 with colour
    da2_response="\x1b[>1;10;0c",
    da3_response=None,
    mode_capabilities=MODES,
    options=frozenset(),
    charsets=frozenset("BA0"),
    power_on_modes=frozenset(),
    fixed_modes=frozenset(),
    reflows=True,
)
