"""The `options` of a feed, checked against the model of its venue."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from streamapp.errors import ConfigurationError
from streamapp.settings import FeedSettings

Options = TypeVar("Options", bound=BaseModel)


def parse_options(model: type[Options], feed: FeedSettings) -> Options:
    """Validate the options of `feed`.

    Raises:
        ConfigurationError: with the option's name and what was expected there.
    """
    try:
        return model.model_validate(feed.options)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "options"
        known = ", ".join(sorted(model.model_fields))
        raise ConfigurationError(
            f"option {where!r} of a {feed.venue} feed: {first['msg'].lower()}; the options are: {known}"
        ) from None
