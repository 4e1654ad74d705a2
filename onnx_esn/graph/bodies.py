"""Subgraphs laid open: the bodies of If, Loop and Scan as nodes of the main graph, and back.

The rules of the graph walk know one list of nodes. `flattened` puts the nodes of each body into it,
between two marks: where values enter a body (Loop, Scan) and where they leave it (`Exit`, or
`Merge` behind the two branches of an If). Such a model is for analysis and rewriting only, no
runtime knows the marks; `restored` closes the bodies again.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import onnx
from onnx import helper

from onnx_esn.graph.hoisting import Names, hoisted, subgraphs
from onnx_esn.graph.stored import add_initializer, without_nodes

DOMAIN = "onnx_esn.flow"
MERGE, ENTER, EXIT = "Merge", "Enter", "Exit"
BODY = "onnx_esn.body"  # metadata of a node: the path of the body it lies in
_KINDS = ("If", "Loop", "Scan")


def flattened(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with all bodies laid open; the model itself where it has none."""
    if not any(node.op_type in _KINDS for node in model.graph.node):
        return model
    copy = without_nodes(model)
    copy.graph.node.extend(_Flattening(copy, model.graph).laid_open(model.graph.node, ""))
    return copy


class _Flattening:
    def __init__(self, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
        self.model, self.names, self.count = model, Names(graph), 0

    def laid_open(self, nodes: Sequence[onnx.NodeProto], path: str) -> list[onnx.NodeProto]:
        result: list[onnx.NodeProto] = []
        for node in nodes:
            if node.op_type in _KINDS and node.domain in ("", "ai.onnx"):
                result += self._opened(node, path)
            else:
                if path:
                    node.metadata_props.add(key=BODY, value=path)
                result.append(node)
        return result

    def _opened(self, node: onnx.NodeProto, path: str) -> list[onnx.NodeProto]:
        self.count += 1
        graphs = subgraphs(node)
        mark = str(self.count)
        if node.op_type == "If":
            inner: list[onnx.NodeProto] = []
            left: list[str] = []
            for name in ("then_branch", "else_branch"):
                nodes, outputs = self._body(graphs[name], f"{path}/{mark}:{name}", [])
                inner, left = inner + nodes, left + outputs
            return [
                *inner,
                self._mark(MERGE, node, path, mark, [node.input[0], *left], node.output),
            ]
        body = graphs["body"]
        entered = [self.names.fresh(i.name) for i in body.input]
        nodes, outputs = self._body(body, f"{path}/{mark}:body", entered)
        control, counted = (2, 1) if node.op_type == "Loop" else (0, 0)
        carried = len(entered) - control
        if node.op_type == "Scan":
            carried -= int(next(a.i for a in node.attribute if a.name == "num_scan_inputs"))
        states = entered[control : control + carried]
        enter = self._mark(ENTER, node, path, mark, node.input, entered)
        leave = self._mark(EXIT, node, path, mark, [*states, *outputs], node.output)
        if node.op_type == "Scan":
            leave.attribute.append(helper.make_attribute("scanned", node.input[carried]))
        for at in (enter, leave):
            at.attribute.append(helper.make_attribute("carried", carried))
            at.attribute.append(helper.make_attribute("control", control))
            at.attribute.append(helper.make_attribute("conditions", counted))
        return [enter, *nodes, leave]

    def _body(
        self, graph: onnx.GraphProto, path: str, entered: Sequence[str]
    ) -> tuple[list[onnx.NodeProto], list[str]]:
        rename = dict(zip([i.name for i in graph.input], entered, strict=False))
        nodes, tensors, mapping = hoisted(graph, self.names, rename)
        for tensor in tensors:
            add_initializer(self.model, tensor)
        outputs = [mapping.get(o.name, o.name) for o in graph.output]
        return self.laid_open(nodes, path), outputs

    def _mark(
        self,
        kind: str,
        node: onnx.NodeProto,
        path: str,
        mark: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> onnx.NodeProto:
        name = node.name or (node.output[0] if node.output else mark)
        made = helper.make_node(
            kind, inputs, outputs, name=name if kind != ENTER else f"{name}/enter", domain=DOMAIN
        )
        empty = onnx.NodeProto()
        empty.CopyFrom(node)
        for graph in subgraphs(empty).values():
            del graph.node[:], graph.initializer[:], graph.value_info[:]
            for value in (*graph.input, *graph.output):
                for dim in value.type.tensor_type.shape.dim:
                    dim.Clear()  # channels may go
        made.attribute.append(helper.make_attribute("origin", _packed(empty)))
        made.attribute.append(helper.make_attribute("path", path))
        made.attribute.append(helper.make_attribute("mark", mark))
        return made


def is_flat(model: onnx.ModelProto) -> bool:
    """Whether the model has bodies that are laid open."""
    return any(node.domain == DOMAIN for node in model.graph.node)


def restored(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its bodies closed again; the model itself where none is open."""
    if not is_flat(model):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    close_bodies(copy)
    return copy


def close_bodies(model: onnx.ModelProto) -> None:
    """The same in place."""
    if not is_flat(model):
        return
    lists: dict[str, list[onnx.NodeProto]] = {}
    home: dict[str, str] = {}  # the body in which each tensor is made
    entered: dict[str, onnx.NodeProto] = {}
    gone: list[int] = []
    for i, node in enumerate(model.graph.node):
        path = _path(node, home)
        if node.domain == DOMAIN:
            where = _text(node, "path")
            mark = place(node)
            if node.op_type == ENTER:
                entered[mark] = node
                home.update(dict.fromkeys(node.output, f"{mark}:body"))
                gone.append(i)
                continue
            closed, path = _closed(node, mark, entered.get(mark), lists), where
            if path:
                node = closed
            else:
                node.CopyFrom(closed)
        home.update(dict.fromkeys(node.output, path))
        if path:
            lists.setdefault(path, []).append(node)
            gone.append(i)
    for i in reversed(gone):  # one by one: a list that is written anew takes its memory twice
        del model.graph.node[i]


def _path(node: onnx.NodeProto, home: dict[str, str]) -> str:
    """The body a node lies in: the one that is noted, or the innermost that it reads from."""
    for entry in list(node.metadata_props):
        if entry.key == BODY:
            node.metadata_props.remove(entry)
            return str(entry.value)
    return max((home.get(i, "") for i in node.input), key=lambda p: p.count("/"), default="")


def place(node: onnx.NodeProto) -> str:
    """The path of what a mark belongs to: the same for both of its ends."""
    return f"{_text(node, 'path')}/{_text(node, 'mark')}"


def origin(node: onnx.NodeProto) -> onnx.NodeProto:
    """The If, Loop or Scan behind a mark, its bodies empty."""
    result = onnx.NodeProto()
    result.ParseFromString(base64.b64decode(_text(node, "origin")))
    return result


def _packed(node: onnx.NodeProto) -> str:
    """A node as text: GraphSurgeon reads every string attribute as UTF-8."""
    return base64.b64encode(node.SerializeToString(deterministic=True)).decode()


def scanned(node: onnx.NodeProto) -> str | None:
    """What a Scan takes apart (the first of them, where there are several)."""
    return next((a.s.decode() for a in node.attribute if a.name == "scanned"), None)


def _text(node: onnx.NodeProto, name: str) -> str:
    return next(bytes(a.s) for a in node.attribute if a.name == name).decode()


def number(node: onnx.NodeProto, name: str) -> int:
    """An attribute of a mark: `control`, `carried` or `conditions`, each a count of values."""
    return next(int(a.i) for a in node.attribute if a.name == name)


def _closed(
    node: onnx.NodeProto,
    mark: str,
    enter: onnx.NodeProto | None,
    lists: dict[str, list[onnx.NodeProto]],
) -> onnx.NodeProto:
    """The If, Loop or Scan that ends at `node`."""
    closed = origin(node)
    closed.output[:] = node.output
    graphs = subgraphs(closed)
    if enter is None:
        closed.input[:] = node.input[:1]
        count = len(node.output)
        left = {
            "then_branch": list(node.input[1 : 1 + count]),
            "else_branch": list(node.input[1 + count :]),
        }
    else:
        closed.input[:] = enter.input
        left = {"body": list(node.input[number(node, "carried") :])}
        for value, name in zip(graphs["body"].input, enter.output, strict=True):
            value.name = name
    for branch, outputs in left.items():
        graph = graphs[branch]
        nodes = lists.pop(f"{mark}:{branch}", [])
        made = {o for n in nodes for o in n.output}
        taken: set[str] = set()
        for value, name in zip(graph.output, outputs, strict=True):
            if name not in made or name in taken:  # a body returns what it made itself, and once
                fresh = f"{mark}_{name}_passed"
                nodes.append(helper.make_node("Identity", [name], [fresh], name=fresh))
                name = fresh
            taken.add(name)
            value.name = name
        graph.node.extend(nodes)
    return closed
