"""What all models have in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """A part of a request or an answer. Fields that a later version of the service adds are kept as extra fields."""

    model_config = ConfigDict(extra="allow", protected_namespaces=(), defer_build=True)

    def model_post_init(self, context: Any) -> None:
        """Count the field `type`, which tells models apart, as set: it is sent although it has a default."""
        if "type" in type(self).model_fields:
            self.model_fields_set.add("type")
