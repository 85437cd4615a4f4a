"""Kill points: every await and every step of the commit path, found in the source itself, and a SIGKILL at one of them.

The modules of the path are rewritten while they are imported: each `await` and each step gets a point before it and after
it, named by its function, its number there and its text. So the points are what the source has today; an await that is new
is a new point, without anybody writing it down. The environment says what happens at them:

    FAULTS_POINTS_FILE   every point is written there when it is passed the first few times
    FAULTS_KILL_AT       `NUMBER POINT`: at the NUMBER-th passing the process kills itself
    FAULTS_SIGNAL        with another signal than KILL: STOP
"""

import ast
import builtins
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).parents[2]
#: how many passings of a point are written down
RECORDED_MAX = 9
#: module -> the functions of the path; None: all of them. Awaits anywhere in them are points.
AWAITS: dict[str, set[str] | None] = {
    "streamapp.engine.checkpoints": None,
    "streamapp.engine.checkpoint_timer": None,
    "streamapp.engine.lease": None,
    "streamapp.engine.runtime": None,
    "streamapp.engine.takeover": None,
    "streamapp.engine.source_lanes": None,
    "streamapp.engine.transport": {
        "LaneConsumer._commit",
        "LaneConsumer._settle",
        "LaneConsumer.on_partitions_revoked",
        "LaneConsumer.on_stop",
        "LaneConsumer.seek_lane",
        "LaneConsumer.perform_seek",
    },
    "streamapp.engine.lane": None,
    "streamapp.engine.tables": None,
    "streamapp.engine.rekeying": None,
    "streamapp.engine.restore": None,
    "streamapp.engine.rocks": None,
    "streamapp.kafka.producer": {"DurableProducer.send_all", "DurableProducer._hand_over"},
    "streamapp.state.partition": None,
}
#: functions in which every statement with an effect is a point of its own: a crash does not wait for an await
STEPS: dict[str, set[str]] = {
    "streamapp.engine.checkpoints": {"Checkpointer.flush", "Checkpointer._flush"},
    "streamapp.engine.rocks": {"RocksStore.write"},
    "streamapp.engine.restore": {"_read"},
    "streamapp.kafka.producer": {"_Pending.delivered"},
    "streamapp.state.partition": {"PartitionState.write_flush", "PartitionState.finish_flush"},
}


class _Weaver(ast.NodeTransformer):
    """Puts the points into one module and lists them."""

    def __init__(self, module: str) -> None:
        self.points: list[str] = []
        self._module = module.removeprefix("streamapp.")
        self._awaits = AWAITS.get(module, set())
        self._steps = STEPS.get(module, set())
        self._stack: list[str] = []
        self._numbers: Counter[str] = Counter()

    @property
    def _name(self) -> str:
        return ".".join(self._stack)

    def _outer(self) -> str:
        """The method that a nested function belongs to."""
        return ".".join(self._stack[:2])

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._within(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        found = self._within(node)
        if ".".join([*self._stack, node.name]) in self._steps:
            self._stack.append(node.name)
            self._weave_statements(node)
            self._stack.pop()
        return found

    def _within(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self._stack.append(node.name)
        self.generic_visit(node)
        self._stack.pop()
        return node

    def _point(self, kind: str, text: str) -> str:
        self._numbers[self._name] += 1
        short = " ".join(text.split())[:60]
        point = f"{self._module}.{self._name}#{self._numbers[self._name]} {kind} {short}"
        self.points.append(point)
        return point

    def _wanted(self) -> bool:
        return bool(self._stack) and (
            self._awaits is None or self._name in self._awaits or self._outer() in self._awaits
        )

    def visit_Await(self, node: ast.Await) -> ast.AST:
        text = ast.unparse(node)
        self.generic_visit(node)
        if not self._wanted():
            return node
        before = _call("_fault_before", self._point("before", text), node.value)
        return _call("_fault_after", self._point("after", text), ast.Await(before))

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        text = ast.unparse(node).splitlines()[0]
        self.generic_visit(node)
        if self._wanted():
            node.body.insert(0, ast.Expr(_call("_fault_point", self._point("inside", text))))
        return node

    def _weave_statements(self, node: ast.AST) -> None:
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if not isinstance(block, list):
                continue
            woven: list[ast.stmt] = []
            for statement in block:
                if _has_effect(statement):
                    woven.append(ast.Expr(_call("_fault_point", self._point("at", ast.unparse(statement)))))
                woven.append(statement)
                self._weave_statements(statement)
            block[:] = woven
        for handler in getattr(node, "handlers", ()):
            self._weave_statements(handler)


def _has_effect(statement: ast.stmt) -> bool:
    """Whether a statement calls something or changes an object; the points of awaits are there already."""
    if "_fault_" in ast.dump(statement):
        return False
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call)
    return isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Attribute)


def _call(name: str, point: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), [ast.Constant(point), *arguments], [])


def _weave(module: str, source: str) -> tuple[ast.Module, list[str]]:
    weaver = _Weaver(module)
    tree = weaver.visit(ast.parse(source))
    return ast.fix_missing_locations(tree), weaver.points


def all_points() -> list[str]:
    """Every point of the path as its source stands now."""
    found: list[str] = []
    for module in {**AWAITS, **STEPS}:
        found += _weave(module, (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))[1]
    return found


# --- in the worker ---------------------------------------------------------------------------------------------------


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        # never from the cache of compiled modules, nor into it
        path = self.get_filename(fullname)
        tree, _ = _weave(fullname, Path(path).read_text(encoding="utf-8"))
        return compile(tree, path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in AWAITS and fullname not in STEPS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(fullname, spec.origin)
        return spec


class _Points:
    """Counts passings; kills at the one that was asked for."""

    def __init__(self, file: str | None, kill_at: str | None) -> None:
        number, _, self._target = (kill_at or "0 ").partition(" ")
        self._number = int(number)
        self._signal = signal.Signals[f"SIG{os.environ.get('FAULTS_SIGNAL', 'KILL')}"]
        self._passed: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if file is not None else -1

    def passed(self, point: str) -> None:
        with self._lock:
            self._passed[point] += 1
            number = self._passed[point]
        dies = point == self._target and number == self._number
        if self._file >= 0 and (number <= RECORDED_MAX or dies):
            os.write(self._file, f"{'kill' if dies else 'pass'} {number} {point}\n".encode())
        if dies:
            os.kill(os.getpid(), self._signal)

    def before(self, point: str, value: object) -> object:
        self.passed(point)
        return value

    after = before


def weave() -> None:
    """Weave the points into what is imported from now on; they do nothing until they are armed."""
    early = [module for module in AWAITS if module in sys.modules]
    assert not early, f"imported before the kill points could be woven in: {early}"
    vars(builtins).update(_fault_point=_nothing, _fault_before=_same, _fault_after=_same)
    sys.meta_path.insert(0, _Finder())


def _nothing(point: str) -> None:
    pass


def _same(point: str, value: object) -> object:
    return value


def install_from_environment() -> None:
    """Weave and arm the points where the environment asks for it; before anything of the package is imported."""
    file, kill_at = os.environ.get("FAULTS_POINTS_FILE"), os.environ.get("FAULTS_KILL_AT")
    if file is None and kill_at is None:
        return
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        weave()
    points = _Points(file, kill_at)
    vars(builtins).update(_fault_point=points.passed, _fault_before=points.before, _fault_after=points.after)


def recorded(file: Path) -> Iterator[tuple[str, int, str]]:
    """(`pass` or `kill`, number of the passing, point) as a worker wrote them down."""
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        kind, number, point = line.split(" ", 2)
        yield kind, int(number), point
