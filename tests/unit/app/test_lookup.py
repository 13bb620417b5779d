"""Finding the app that `-A` means, and importing modules with tasks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amqp_tasks import App, find_app
from amqp_tasks.errors import AppNotFound, ConfigurationError

APP = "from amqp_tasks import App\n"
CELERY = "from celery import Celery\nshop = Celery('shop', set_as_current=False)\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory that is the current one; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AMQP_TASKS_APP", raising=False)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / f"{name.replace('__', '/', 1)}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "spec", "main"),
    [
        ({"one": APP + "odd = App('1')"}, "one:odd", "1"),
        ({"two": APP + "celery = App('no'); app = App('2')"}, "two", "2"),
        ({"three": APP + "other = App('no'); celery = App('3')"}, "three", "3"),
        ({"four": APP + "celery_consumer = App('4')"}, "four", "4"),
        ({"fifth____init__": "", "fifth__celery": APP + "app = App('5')"}, "fifth", "5"),
        ({"sixth____init__": APP + "x = App('6')", "sixth__celery": "raise AssertionError"}, "sixth", "6"),
        ({"seventh": APP + "odd = App('7'); app = App('no')"}, "seventh.odd", "7"),
        ({"eighth____init__": "odd = 'no'", "eighth__odd": APP + "app = App('8')"}, "eighth.odd", "8"),
    ],
)
def test_the_rules_of_celery_hold(project: Path, files: dict[str, str], spec: str, main: str) -> None:
    for name, text in files.items():
        package, _, module = name.partition("__")
        path = project / package / f"{module}.py" if module else project / f"{package}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    assert find_app(spec).main == main


def test_environment_then_pyproject_name_the_app(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, first=APP + "app = App('first')", second=APP + "app = App('second')")
    (project / "pyproject.toml").write_text('[tool.amqp-tasks]\napp = "second"\n')

    assert find_app().main == "second"
    monkeypatch.setenv("AMQP_TASKS_APP", "first")
    assert find_app().main == "first"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tool]\namqp-tasks = "tasks"', r"\[tool.amqp-tasks\] must be a table such as .*, got str"),
        ("tool = 3", r"\[tool\] must be a table such as .*, got int"),
        ("[tool.amqp-tasks]\napp = 3", "app must be text"),
    ],
)
def test_a_pyproject_that_holds_something_else_is_told_with_the_remedy(
    project: Path, text: str, said: str
) -> None:
    (project / "pyproject.toml").write_text(text)

    with pytest.raises(AppNotFound, match=said):
        find_app()


@pytest.mark.parametrize(
    ("text", "spec", "said"),
    [
        (None, "missing", "'missing'.*not found"),
        ("", "empty", "no App in module 'empty'"),
        ("x = 1", "empty:x", "is of type int, not an App"),
        ("x = 1", "empty:y", "no attribute 'y'"),
        (None, None, "no app named"),
    ],
)
def test_what_names_no_app_says_why(project: Path, text: str | None, spec: str | None, said: str) -> None:
    if text is not None:
        write(project, empty=text)

    with pytest.raises(AppNotFound, match=said):
        find_app(spec)


@pytest.mark.parametrize(
    ("files", "spec", "what"),
    [
        ({"old_shop": CELERY}, "old_shop", "'shop' in module 'old_shop'"),
        ({"old_shop": CELERY}, "old_shop:shop", "'old_shop:shop'"),
        ({"old_shop": CELERY}, "old_shop.shop", "'old_shop.shop'"),
        ({"pkg____init__": "", "pkg__celery": CELERY}, "pkg", "'shop' in module 'pkg.celery'"),
        ({"pkg____init__": "", "pkg__celery": CELERY}, "pkg.celery", "'shop' in module 'pkg.celery'"),
    ],
)
def test_a_stock_celery_app_is_told_from_one_of_ours(
    project: Path, files: dict[str, str], spec: str, what: str
) -> None:
    write(project, **files)

    with pytest.raises(AppNotFound) as caught:
        find_app(spec)

    assert str(caught.value) == (
        f"{what} is an app of Celery's, which this cannot run: make it one of ours with `from amqp_tasks import App`; "
        "see how-to/migrate-from-celery in the documentation"
    )


@pytest.mark.parametrize("text", ["import nothing_of_that_name", "raise LookupError('inside')"])
def test_an_error_inside_of_the_module_is_shown_as_it_is(project: Path, text: str) -> None:
    write(project, broken=text)

    with pytest.raises((ModuleNotFoundError, LookupError)) as caught:
        find_app("broken")

    assert not isinstance(caught.value, AppNotFound)


def test_includes_are_imported_and_a_missing_one_is_named(project: Path) -> None:
    write(project, with_tasks="LOADED = True")
    sys.path.insert(0, str(project))
    App("proj", include=["with_tasks"]).load_imports()

    assert sys.modules["with_tasks"].LOADED
    with pytest.raises(ConfigurationError, match="'no_such_module'"):
        App("proj", include=["no_such_module"]).load_imports()


def test_autodiscovery_takes_what_is_there_and_hides_no_error(project: Path) -> None:
    for package, files in {
        "a": ["__init__", "tasks", "jobs"],
        "b": ["__init__"],
        "c": ["__init__", "tasks"],
    }.items():
        (project / package).mkdir()
        for name in files:
            (project / package / f"{name}.py").write_text("")
    (project / "c" / "tasks.py").write_text("import missing_inside_c")
    sys.path.insert(0, str(project))
    app = App("proj")
    app.autodiscover_tasks(lambda: ["a", "b"])
    app.autodiscover_tasks(["a"], "jobs")
    assert "a.tasks" not in sys.modules

    app.load_imports()

    assert {"a.tasks", "a.jobs"} <= set(sys.modules)
    with pytest.raises(ModuleNotFoundError, match="missing_inside_c"):
        app.autodiscover_tasks(["c"], force=True)


def test_autodiscovery_without_packages_is_refused_with_what_to_write() -> None:
    """Celery asks Django then."""
    with pytest.raises(
        ConfigurationError, match=r'\["shop", "mail"\]\); in a Django project .*get_app_configs'
    ):
        App("proj").autodiscover_tasks()


def test_a_package_to_discover_that_is_not_there_is_named(project: Path) -> None:
    write(project, here__tasks="", here____init__="import missing_inside_here")
    sys.path.insert(0, str(project))
    app = App("proj")

    with pytest.raises(
        ConfigurationError, match=r"package 'gone' \(of autodiscover_tasks\) not found: .*directory"
    ):
        app.autodiscover_tasks("gone", force=True)
    with pytest.raises(ModuleNotFoundError, match="missing_inside_here"):
        app.autodiscover_tasks(["here"], force=True)


def test_the_second_of_two_workers_in_a_process_waits_until_all_tasks_are_there() -> None:
    """They may start at the same time; the built-in tasks were registered twice then, and one worker ended."""
    app = App("proj", broker="memory://finalized")
    began, go_on = threading.Event(), threading.Event()

    def discover() -> Sequence[str]:
        began.set()
        assert go_on.wait(10)
        return ()

    app.autodiscover_tasks(discover)
    with app, ThreadPoolExecutor(2) as pool:
        first = pool.submit(app.finalize)
        assert began.wait(10)
        second = pool.submit(app.finalize)
        with pytest.raises(TimeoutError):
            second.result(0.2)
        go_on.set()

        first.result(10)
        second.result(10)
