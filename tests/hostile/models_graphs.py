"""Hostile models, continued: graphs that cannot be."""

from __future__ import annotations

from tests.hostile.models import hostile, saved, written
from tests.hostile.verbs import sound_model


@hostile("no nodes")
def no_nodes(folder):
    model = sound_model()
    del model.graph.node[:]
    return saved(model, folder)


@hostile("cycle")
def cyclic(folder):
    model = sound_model()
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]
    return saved(model, folder)


@hostile("before it is made")
def out_of_order(folder):
    model = sound_model()
    nodes = [*reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return saved(model, folder)


@hostile("reads itself")
def reads_its_own_output(folder):
    model = sound_model()
    model.graph.node[0].input[0] = model.graph.node[0].output[0]
    return saved(model, folder)


@hostile()
def nodes_of_one_name(folder):
    model = sound_model()
    for node in model.graph.node:
        node.name = "same"
    return saved(model, folder)


@hostile("twice")
def values_of_one_name(folder):
    model = sound_model()
    model.graph.node[1].output[0] = model.graph.node[0].output[0]
    return saved(model, folder)


@hostile("twice")
def initializers_of_one_name(folder):
    model = sound_model()
    model.graph.initializer.append(model.graph.initializer[0])
    return saved(model, folder)


@hostile("twice")
def inputs_of_one_name(folder):
    model = sound_model()
    model.graph.input.append(model.graph.input[0])
    return saved(model, folder)


@hostile("nobody makes")
def missing_initializer(folder):
    model = sound_model()
    del model.graph.initializer[0]
    return saved(model, folder)


@hostile("nobody makes")
def missing_output(folder):
    model = sound_model()
    model.graph.output[0].name = "nowhere"
    return saved(model, folder)


@hostile("nobody makes")
def no_outputs_no_inputs(folder):
    model = sound_model()
    del model.graph.output[:], model.graph.input[:]
    return saved(model, folder)


@hostile()
def no_outputs(folder):
    model = sound_model()
    del model.graph.output[:]
    return saved(model, folder)


@hostile()
def nodes_without_inputs(folder):
    model = sound_model()
    for node in model.graph.node:
        del node.input[:]
    return saved(model, folder)


@hostile()
def nodes_without_outputs(folder):
    model = sound_model()
    del model.graph.node[-1].output[:]
    return saved(model, folder)


@hostile()
def long_names(folder):
    model = sound_model()
    name = "n" * 200_000
    model.graph.node[0].name = name
    model.graph.name = name
    model.graph.node[0].output[0] = name
    model.graph.node[1].input[0] = name
    return saved(model, folder)


@hostile("UTF-8")
def names_that_are_no_text(folder):
    return written(sound_model().SerializeToString().replace(b"relu", b"re\xff\xfe"), folder)


@hostile()
def names_with_controls(folder):
    model = sound_model()
    model.graph.node[0].name = "a\n\x1b[31mred\x00\u202e"
    return saved(model, folder)
