"""How large each measurement is: three profiles, from a figure worth keeping to a proof that the harness works."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Amounts of one profile. Engines that are slow get fewer events, so that each runs for some seconds.

    Attributes:
        broker_warmup_s: how long a new broker is used before anything is measured.
        rounds: how often each engine of a comparison runs, in turn.
        trades: events for this project and for Kafka Streams, whose compiler needs a while to get warm.
        trades_fast: ... for Bytewax and Pathway.
        trades_quix, trades_faust: ... for Quix Streams and for plain Faust.
        step_trades: events for a table with a user's own function.
        agent_trades, agent_trades_stock: events for an agent, of this project and of plain Faust.
        latency_s, latency_warmup_s: how long probes are sent, and the part of it that does not count.
        read_s: how long each read test runs.
        read_load: events/s that come in while reads are measured.
        tool_load: events/s that come in while tools are called.
        tool_s: how long each test of the tools runs.
        subscribers: event streams, one key each; one in ten of them stalls.
        subscriber_s: how long they are told of a steady load.
        subscriber_trades: events of a backlog that is worked off with and without them.
        keys: distinct keys of the recovery and of the take-over.
        frames: trades of the bridge.
        windows: live windows of the memory test.
        scaling_trades: events for each number of workers.
    """

    broker_warmup_s: float
    rounds: int
    trades: int
    trades_fast: int
    trades_quix: int
    trades_faust: int
    step_trades: int
    agent_trades: int
    agent_trades_stock: int
    latency_s: float
    latency_warmup_s: float
    read_s: float
    read_load: int
    tool_load: int
    tool_s: float
    subscribers: int
    subscriber_s: float
    subscriber_trades: int
    keys: int
    frames: int
    windows: int
    scaling_trades: int


PROFILES = {
    "full": Sizes(
        broker_warmup_s=40.0,
        rounds=3,
        trades=3_000_000,
        trades_fast=600_000,
        trades_quix=150_000,
        trades_faust=60_000,
        step_trades=1_000_000,
        agent_trades=300_000,
        agent_trades_stock=50_000,
        latency_s=20.0,
        latency_warmup_s=5.0,
        read_s=8.0,
        read_load=50_000,
        tool_load=20_000,
        tool_s=20.0,
        subscribers=1_000,
        subscriber_s=20.0,
        subscriber_trades=1_500_000,
        keys=1_000_000,
        frames=500_000,
        windows=1_000_000,
        scaling_trades=20_000_000,
    ),
    "quick": Sizes(
        broker_warmup_s=30.0,
        rounds=1,
        trades=1_000_000,
        trades_fast=300_000,
        trades_quix=60_000,
        trades_faust=15_000,
        step_trades=300_000,
        agent_trades=100_000,
        agent_trades_stock=15_000,
        latency_s=8.0,
        latency_warmup_s=3.0,
        read_s=3.0,
        read_load=50_000,
        tool_load=20_000,
        tool_s=8.0,
        subscribers=1_000,
        subscriber_s=8.0,
        subscriber_trades=600_000,
        keys=200_000,
        frames=100_000,
        windows=200_000,
        scaling_trades=8_000_000,
    ),
    "tiny": Sizes(
        broker_warmup_s=0.0,
        rounds=1,
        trades=120_000,
        trades_fast=40_000,
        trades_quix=10_000,
        trades_faust=3_000,
        step_trades=40_000,
        agent_trades=20_000,
        agent_trades_stock=3_000,
        latency_s=3.0,
        latency_warmup_s=1.0,
        read_s=1.0,
        read_load=5_000,
        tool_load=2_000,
        tool_s=2.0,
        subscribers=100,
        subscriber_s=2.0,
        subscriber_trades=60_000,
        keys=20_000,
        frames=10_000,
        windows=20_000,
        scaling_trades=1_500_000,
    ),
}
