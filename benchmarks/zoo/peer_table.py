"""The section about other tools."""

from __future__ import annotations

import collections
import statistics

from benchmarks.zoo.records import Record

PEERS = (
    "Torch-Pruning",
    "onnxsim, kept",
    "onnxsim, folded",
    "qonnx, kept",
    "qonnx, folded",
)
_TEXT = """## Other tools on the same nets

MACs left at ratio .5, counted the same way for all: by our counter, in the ONNX file that comes
out. *crash*: an exception or a dead process; *invalid*: the checker or onnxruntime refuses the
result, or its outputs have other shapes; *time*: not done in {limit}.

- Torch-Pruning (`MagnitudePruner`) works on the torch module, not on a file; the layers that make
  the outputs were named to it as untouchable.
- onnxsim: `apply_structured_pruning(model, 0.5)`.
- qonnx: `PruneChannels` must be told what goes; it was told the first half of every dense conv,
  after its own clean-up.
"""


def peer_section(peers: list[Record], ours: list[Record]) -> str:
    """Peers net by net, and their totals."""
    if not peers:
        return ""
    by_key = {(r["name"], r["peer"]): r for r in peers}
    names = sorted({r["name"] for r in peers})
    left = {(r["name"], r["exporter"]): r for r in ours}
    columns = [p for p in PEERS if any((n, p) in by_key for n in names)]
    own = [(f"onnx-esn, {e}", [_own(left.get((n, e))) for n in names]) for e in ("kept", "folded")]
    cells = [*own, *((p, [_cell(by_key.get((n, p))) for n in names]) for p in columns)]
    head = ["", *(title for title, _ in cells)]
    lines = [
        ["runs, valid", *(_share(column, "%") for _, column in cells)],
        ["crash", *(_share(column, "crash") for _, column in cells)],
        ["invalid", *(_share(column, "invalid") for _, column in cells)],
        ["time", *(_share(column, "time") for _, column in cells)],
        ["removes nothing", *(_share(column, "100 %") for _, column in cells)],
        ["median MACs left where it runs", *(_median(column) for _, column in cells)],
    ]
    detail = [[f"`{name}`", *(column[k] for _, column in cells)] for k, name in enumerate(names)]
    limits = {r["limit"] for r in peers if "limit" in r}
    text = _TEXT.format(limit=" or ".join(f"{x:g} s" for x in sorted(limits)) or "time")
    return "\n".join(
        [
            text,
            _table(head, lines),
            _reasons(peers),
            "<details><summary>Net by net</summary>\n",
            _table(["net", *head[1:]], detail),
            "</details>\n",
        ]
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _own(r: Record | None) -> str:
    if r is None:
        return "–"
    if r["bad"]:
        return "crash" if r["crash"] else "invalid"
    return f"{100 * r['left']:.0f} %"


def _cell(r: Record | None) -> str:
    if r is None:
        return "–"
    if r["error"]:
        return "time" if r["error"].startswith("time") else "crash"
    return "invalid" if r["broken"] else f"{100 * r['left']:.0f} %"


def _share(column: list[str], end: str) -> str:
    asked = [c for c in column if c != "–"]
    return f"{sum(c.endswith(end) if end == '%' else c == end for c in asked)} of {len(asked)}"


def _median(column: list[str]) -> str:
    shares = [float(c.split()[0]) for c in column if c.endswith("%")]
    return f"{statistics.median(shares):.0f} %" if shares else "–"


def _reasons(peers: list[Record]) -> str:
    """The most frequent message of each peer's crashes and invalid results."""
    lines = []
    for peer in PEERS:
        texts: collections.Counter[str] = collections.Counter()
        for r in peers:
            text = r["error"] or r["broken"]
            if r["peer"] == peer and text and not text.startswith("time"):
                texts[text.split(": ", 1)[-1][:70].replace("|", "/")] += 1
        if texts:
            text, count = texts.most_common(1)[0]
            lines.append(f"- {peer}: most often (×{count}) `{text.replace('`', '')}`")
    return "Crashes and invalid results:\n\n" + "\n".join(lines) + "\n" if lines else ""
