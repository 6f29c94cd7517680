"""Catalogues of data sets and models. Their files lie in the data directory."""

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import models_pb2 as models_pb
from service.errors import DatabaseRowError, Reason, ServiceError
from service.storage.digests import is_intact
from service.stores.database import NEWEST, Database
from service.stores.tables import DATASETS, MODELS, Row

__all__ = ["DatasetCatalogue", "ModelCatalogue"]


class DatasetCatalogue:
    """The registered data sets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, dataset: datasets_pb.Dataset) -> None:
        """Registers a data set under its name, which must be free."""
        with self._database.transaction():
            self.require_free(dataset.name)
            DATASETS.insert(self._database, {"name": dataset.name, "body": dataset.SerializeToString()})

    def require_free(self, name: str) -> None:
        """Checks that no data set has this name.

        Raises:
            ServiceError: ALREADY_EXISTS.
        """
        if self._has(name):
            raise ServiceError(
                Reason.ALREADY_EXISTS,
                f"there is a data set {name!r} already, and data sets do not change: give another name, "
                f"or `nabla dataset delete {name}` first",
                dataset=name,
            )

    def find(self, name: str) -> datasets_pb.Dataset | None:
        """Returns the data set of this name, if there is one.

        Raises:
            DatabaseRowError: Its row is damaged.
        """
        bodies = DATASETS.bodies(self._database, "WHERE name = ?", name)
        return datasets_pb.Dataset.FromString(bodies[0]) if bodies else None

    def get(self, name: str) -> datasets_pb.Dataset:
        """Returns the data set.

        Raises:
            ServiceError: NOT_FOUND.
            DatabaseRowError: Its row is damaged.
        """
        dataset = self.find(name)
        if dataset is None:
            raise _no_dataset(name)
        return dataset

    def require(self, name: str) -> None:
        """Checks that there is such a data set, damaged or not.

        Raises:
            ServiceError: NOT_FOUND.
        """
        if not self._has(name):
            raise _no_dataset(name)

    def page(self, after: str, limit: int) -> tuple[list[datasets_pb.Dataset], str]:
        """Returns at most `limit` data sets by name, after the name `after`, and the `after` of the next page.

        A damaged one has only its name and a description of the damage.
        """
        rows, last = DATASETS.page(self._database, "WHERE name > ? ORDER BY name", after, limit=limit)
        datasets = [
            datasets_pb.Dataset.FromString(row[-2]) if is_intact(row) else _damaged_dataset(row) for row in rows
        ]
        return datasets, last[0] if last else ""

    def names(self) -> list[str]:
        """Returns all names, in order."""
        return [str(row[0]) for row in self._database.rows("SELECT name FROM datasets ORDER BY name")]

    def delete(self, name: str) -> None:
        """Deletes a data set, even a damaged one, and even on a full disk."""

        def delete() -> None:
            with self._database.transaction() as transaction:
                self.require(name)
                transaction.execute("DELETE FROM datasets WHERE name = ?", (name,))

        self._database.with_reserve(delete)

    def _has(self, name: str) -> bool:
        return bool(self._database.rows("SELECT 1 FROM datasets WHERE name = ?", name))


class ModelCatalogue:
    """The trained models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, model: models_pb.Model) -> None:
        """Registers a model. One of the same id, left by a crash between model and job, is replaced."""
        with self._database.transaction():
            number = MODELS.next_number(self._database)
            row = {"model_id": model.model_id, "number": number, "body": model.SerializeToString()}
            MODELS.insert(self._database, row, replace=True)

    def get(self, model_id: str) -> models_pb.Model:
        """Returns the model.

        Raises:
            ServiceError: NOT_FOUND.
            DatabaseRowError: Its row is damaged.
        """
        bodies = MODELS.bodies(self._database, "WHERE model_id = ?", model_id)
        if not bodies:
            raise _no_model(model_id)
        return models_pb.Model.FromString(bodies[0])

    def ids(self) -> set[str]:
        """Returns all ids."""
        return {str(row[0]) for row in self._database.rows("SELECT model_id FROM models")}

    def rebuild_indexes(self) -> None:
        """Rebuilds the indexes from the rows, because indexes have no digests."""
        MODELS.rebuild_indexes(self._database)

    def damages(self) -> list[DatabaseRowError]:
        """Returns the damage of each damaged model, or that the table cannot be read."""
        return MODELS.damages(self._database)

    def page(self, before: int | None, limit: int) -> tuple[list[models_pb.Model], int | None]:
        """Returns at most `limit` models, newest first, older than number `before`, and the `before` of the next page.

        A damaged one has only its id and a description of the damage.
        """
        query = "WHERE number < ? ORDER BY number DESC"
        rows, last = MODELS.page(self._database, query, before or NEWEST, limit=limit)
        models = [models_pb.Model.FromString(row[-2]) if is_intact(row) else _damaged_model(row) for row in rows]
        return models, last[1] if last else None

    def delete(self, model_id: str) -> None:
        """Deletes a model, even a damaged one, and even on a full disk."""

        def delete() -> None:
            with self._database.transaction() as transaction:
                if not self._has(model_id):
                    raise _no_model(model_id)
                transaction.execute("DELETE FROM models WHERE model_id = ?", (model_id,))

        self._database.with_reserve(delete)

    def _has(self, model_id: str) -> bool:
        return bool(self._database.rows("SELECT 1 FROM models WHERE model_id = ?", model_id))


def _no_dataset(name: str) -> ServiceError:
    sentence = f"there is no data set {name!r}; `nabla dataset list` shows those there are"
    return ServiceError(Reason.NOT_FOUND, sentence, dataset=name)


def _no_model(model_id: str) -> ServiceError:
    sentence = f"there is no model {model_id!r}; `nabla model list` shows those there are"
    return ServiceError(Reason.NOT_FOUND, sentence, model_id=model_id)


def _damaged_dataset(row: Row) -> datasets_pb.Dataset:
    damage = DATASETS.damage(row)
    return datasets_pb.Dataset(name=damage.metadata["name"], damage=str(damage))


def _damaged_model(row: Row) -> models_pb.Model:
    damage = MODELS.damage(row)
    return models_pb.Model(model_id=damage.metadata["model_id"], damage=str(damage))
