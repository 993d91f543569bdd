"""One step of a recurrent layer, the state carried on from call to call: `stream.step` and the peers' nearest to it."""

from __future__ import annotations

from . import gru, lstm, rnn

OPS = tuple(module.CELL.ops()[1] for module in (rnn, lstm, gru))
