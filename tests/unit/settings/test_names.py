"""Names are Celery's, every one of them, and each either works or says why not."""

from __future__ import annotations

from celery.app import defaults as celery_defaults

from amqp_tasks.settings import Conf
from amqp_tasks.settings._models import FIELDS
from amqp_tasks.settings._names import ALIASES, UNSUPPORTED, did_you_mean, old_names


def test_every_setting_of_celery_is_known_or_explained() -> None:
    explained = {*FIELDS, *UNSUPPORTED, *ALIASES}

    assert sorted(set(celery_defaults.SETTING_KEYS) - explained) == []


def test_nothing_is_both_there_and_explained_away() -> None:
    assert not set(FIELDS) & set(UNSUPPORTED)
    assert set(ALIASES.values()) <= set(FIELDS)


def test_old_names_are_celerys() -> None:
    ours = old_names(FIELDS)

    assert {old: ours.get(old) for old in celery_defaults._TO_NEW_KEY} == celery_defaults._TO_NEW_KEY


def test_every_field_is_described() -> None:
    assert [name for name, field in FIELDS.items() if not field.info.description] == []


def test_no_setting_hides_behind_a_member_of_conf() -> None:
    assert [name for name in (*FIELDS, *UNSUPPORTED, *ALIASES) if hasattr(Conf, name)] == []


def test_name_without_its_prefix_finds_the_setting() -> None:
    assert did_you_mean("routes", FIELDS) == "task_routes"
    assert did_you_mean("prefetch_mulitplier", FIELDS) == "worker_prefetch_multiplier"
    assert did_you_mean("xyzzy", FIELDS) is None
