"""What may become a path: scene, array and parameter names come from tables and are never trusted."""

from cache_schema.errors import Problem, SpecInvalid, shown
from cache_schema.fields import Check, Unfit, text

# No dot and no separator: a name can neither leave its folder nor hide in it.
scene_name = text(
    r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}",
    "a name of 1 to 128 letters, digits, '_' and '-' that starts with a letter or digit",
)
layer_name = scene_name  # a folder too
array_name = text(
    r"[A-Za-z][A-Za-z0-9_]{0,63}", "a name of 1 to 64 letters, digits and '_' that starts with a letter"
)
dimension_name = array_name
parameter_name = text(
    r"(?=.{1,200}\Z)[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*",
    "a dotted parameter name of at most 200 letters, digits and '_' between the dots",
)
# Tokens are only ever values, never paths, but they are printed and compared.
token = text(r"[!-~]{1,256}", "a token of 1 to 256 printable ASCII characters without spaces")


def require(check: Check, value: object, what: str) -> str:
    """`value` when `check` accepts it. Raises SpecInvalid that calls it `what`."""
    try:
        return check(value)
    except Unfit as unfit:
        raise SpecInvalid(f"{what} is not valid", [Problem(what, str(unfit), shown(value))]) from None
