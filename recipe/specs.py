"""The loose specs of environment.yml files, as conda writes them and as pip does."""

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from recipe.errors import UserError
from recipe.metadata import pypi_name

SPEC = re.compile(r"([a-z0-9][a-z0-9._-]*)\s*([=<>!~0-9*].*)?")
CLAUSE = re.compile(r"(==|!=|>=|<=|~=|=|>|<)?\s*([0-9][0-9A-Za-z.!+_-]*?)(\.\*|\*)?")


def environment_specs(path: Path) -> list[str]:
    """Return the specs of a conda environment file, as `name` or `name constraint`. Raises UserError for others."""
    try:
        document = yaml.safe_load(path.read_text()) or {}
        lines = document.get("dependencies") or []
    except (yaml.YAMLError, AttributeError) as error:
        raise UserError(f"{path} is not a conda environment file: {error}", "see construct/environment.yml") from error
    specs = []
    for line in lines:
        match = SPEC.fullmatch(line.strip()) if isinstance(line, str) else None
        if not match:
            raise UserError(f"{path}: not a conda package: {line}", "write it like: jupyterhub-base >=5,<6")
        specs.append(f"{match[1]} {(match[2] or '').replace(' ', '')}".rstrip())
    return specs


def merge_specs(specs: Iterable[str]) -> list[str]:
    """Return one spec for each name, with the constraints of all its specs; in the order of first appearance."""
    merged: dict[str, list[str]] = {}
    for spec in specs:
        name, _, constraint = spec.partition(" ")
        clauses = merged.setdefault(name, [])
        if constraint and constraint not in (*clauses, "*"):
            clauses.append(constraint)
    return [f"{name} {','.join(clauses)}".rstrip() for name, clauses in merged.items()]


def requirement(spec: str) -> str:
    """Return pip's requirement for a spec. Raises UserError if pip cannot express it."""
    name, _, constraint = spec.partition(" ")
    clauses = []
    for clause in constraint.split(",") if constraint else ():
        match = CLAUSE.fullmatch(clause)
        if not match or (match[3] and match[1] not in (None, "=", "==", "!=")):
            raise UserError(
                f"{spec} has a constraint that pip does not know",
                "use ==, !=, >=, <=, <, > and 1.2.*, joined by commas",
            )
        operator, version, star = match.groups()
        if operator in (None, "="):  # conda's =1.2 is 1.2.*, its bare 1.2 is exact
            star = star or operator
            operator = "=="
        clauses.append(f"{operator}{version}{'.*' if star else ''}")
    return pypi_name(name) + ",".join(clauses)
