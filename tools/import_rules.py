"""A contract type for import-linter: which room may import which, as one table."""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class RoomsContract(Contract):
    """Every room imports only the rooms named beside it, and every module belongs to a room.

    Unlike the layers of import-linter this says each arrow, so that a room cannot reach for
    something merely because it lies lower.  Only direct imports count: what a room's own imports
    import is that room's business.

    Options:
        rooms: lines of ``room: room room ...``.  The longest matching name is a module's room; a
            line ``room: *`` may import everything.
    """

    rooms = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        table = _table(self.rooms)  # type: ignore[arg-type]  # a descriptor until it is read
        homeless = sorted(
            module
            for module in graph.modules
            if _room_of(module, table) is None
            and not graph.is_module_squashed(module)
            and graph.find_modules_directly_imported_by(module)
        )
        broken = sorted(
            (importer, imported)
            for importer in graph.modules - set(homeless)
            if not graph.is_module_squashed(importer)
            for imported in graph.find_modules_directly_imported_by(importer)
            if not graph.is_module_squashed(imported) and not _is_allowed(importer, imported, table)
        )
        return ContractCheck(
            kept=not broken and not homeless, metadata={"broken": broken, "homeless": homeless}
        )

    def render_broken_contract(self, check: ContractCheck) -> None:
        for module in check.metadata["homeless"]:
            output.print_error(f"{module} belongs to no room of the table", bold=False)
        for importer, imported in check.metadata["broken"]:
            output.print_error(f"{importer} must not import {imported}", bold=False)
        output.new_line()


def _table(lines: list[str]) -> dict[str, frozenset[str]]:
    pairs = (line.partition(":") for line in lines)
    return {room.strip(): frozenset(allowed.split()) for room, _, allowed in pairs}


def _room_of(module: str, table: dict[str, frozenset[str]]) -> str | None:
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in table), None)


def _is_allowed(importer: str, imported: str, table: dict[str, frozenset[str]]) -> bool:
    source, target = _room_of(importer, table), _room_of(imported, table)
    allowed = table[source or ""]
    return source == target or target in allowed or "*" in allowed
