"""Data sets and models by their names. The files themselves lie in the data directory."""

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import models_pb2 as models_pb
from service.errors import Reason, ServiceError
from service.stores.database import NEWEST, Database

__all__ = ["DatasetCatalogue", "ModelCatalogue"]


class DatasetCatalogue:
    """The registered data sets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, dataset: datasets_pb.Dataset) -> None:
        """Registers a data set under its name, which must be free."""
        with self._database.transaction() as transaction:
            self.require_free(dataset.name)
            transaction.execute("INSERT INTO datasets VALUES (?, ?)", (dataset.name, dataset.SerializeToString()))

    def require_free(self, name: str) -> None:
        """Makes sure that no data set has this name.

        Raises:
            ServiceError: ALREADY_EXISTS.
        """
        if self.find(name) is not None:
            raise ServiceError(
                Reason.ALREADY_EXISTS,
                f"there is a data set {name!r} already, and data sets do not change: give another name, "
                f"or `nabla dataset delete {name}` first",
                dataset=name,
            )

    def find(self, name: str) -> datasets_pb.Dataset | None:
        """The data set, if there is one of this name."""
        bodies = self._database.bodies("SELECT body FROM datasets WHERE name = ?", name)
        return datasets_pb.Dataset.FromString(bodies[0]) if bodies else None

    def get(self, name: str) -> datasets_pb.Dataset:
        """The data set.

        Raises:
            ServiceError: NOT_FOUND.
        """
        dataset = self.find(name)
        if dataset is None:
            raise ServiceError(
                Reason.NOT_FOUND,
                f"there is no data set {name!r}; `nabla dataset list` shows those there are",
                dataset=name,
            )
        return dataset

    def page(self, after: str, limit: int) -> tuple[list[datasets_pb.Dataset], str]:
        """At most `limit` data sets in order of their names, after one of them; and the `after` of the next page."""
        query = "SELECT body, name FROM datasets WHERE name > ? ORDER BY name"
        bodies, rest = self._database.page(query, after, limit=limit)
        return [datasets_pb.Dataset.FromString(body) for body in bodies], rest or ""

    def names(self) -> list[str]:
        """All names, in order."""
        return [str(row[0]) for row in self._database.rows("SELECT name FROM datasets ORDER BY name")]

    def delete(self, name: str) -> None:
        """Forgets a data set, also on a full disk."""

        def forget() -> None:
            with self._database.transaction() as transaction:
                self.get(name)
                transaction.execute("DELETE FROM datasets WHERE name = ?", (name,))

        self._database.with_reserve(forget)


class ModelCatalogue:
    """The trained models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, model: models_pb.Model) -> None:
        """Registers a model. One of the same id, left by a crash between model and job, is replaced."""
        with self._database.transaction() as transaction:
            transaction.execute(
                "INSERT OR REPLACE INTO models (model_id, body) VALUES (?, ?)",
                (model.model_id, model.SerializeToString()),
            )

    def get(self, model_id: str) -> models_pb.Model:
        """The model.

        Raises:
            ServiceError: NOT_FOUND.
        """
        bodies = self._database.bodies("SELECT body FROM models WHERE model_id = ?", model_id)
        if not bodies:
            raise ServiceError(
                Reason.NOT_FOUND,
                f"there is no model {model_id!r}; `nabla model list` shows those there are",
                model_id=model_id,
            )
        return models_pb.Model.FromString(bodies[0])

    def ids(self) -> set[str]:
        """All ids."""
        return {str(row[0]) for row in self._database.rows("SELECT model_id FROM models")}

    def page(self, before: int | None, limit: int) -> tuple[list[models_pb.Model], int | None]:
        """At most `limit` models, newest first, older than number `before`; and the `before` of the next page."""
        query = "SELECT body, number FROM models WHERE number < ? ORDER BY number DESC"
        bodies, rest = self._database.page(query, before or NEWEST, limit=limit)
        return [models_pb.Model.FromString(body) for body in bodies], rest

    def delete(self, model_id: str) -> None:
        """Forgets a model, also on a full disk."""

        def forget() -> None:
            with self._database.transaction() as transaction:
                self.get(model_id)
                transaction.execute("DELETE FROM models WHERE model_id = ?", (model_id,))

        self._database.with_reserve(forget)
