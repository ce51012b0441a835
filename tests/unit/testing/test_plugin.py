"""The pytest plugin, as a user's tests use it: without a server."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.plugin_project import Project

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A user's project."""
    return Project(pytester, monkeypatch)


def test_ten_lines(project: Project) -> None:
    """A user's test: the message, and what its receipt triggers."""
    project.run(
        """
        import shop


        def test_an_order_is_published_and_paid(stargate_eager):
            shop.place_order(1, "lamp")
            stargate_eager.assert_produced("orders", payload={"item": "lamp"}, key="order-1")
            assert shop.paid == [(1, "stored")]


        def test_each_test_begins_with_nothing(stargate_eager):
            assert stargate_eager.topics == {}
        """
    ).assert_outcomes(passed=2)


def test_a_failed_assertion_shows_the_nearest_messages(project: Project) -> None:
    """With a diff of the payload."""
    run = project.run(
        """
        import shop


        def test_lamp(stargate_eager):
            shop.place_order(1, "lantern")
            stargate_eager.assert_produced("orders", payload={"item": "lamp"})
        """
    )
    run.assert_outcomes(failed=1)
    run.stdout.fnmatch_lines(
        [
            "E * expected a message in *shop-orders with payload={'item': 'lamp'}; 0 of 1 match",
            'E * -   "item": "lamp"',
            'E * +   "item": "lantern"',
        ]
    )


def test_receipts(project: Project) -> None:
    """They are held, released, and replaced by failures."""
    project.run(
        """
        import pytest
        import shop
        from celery_stargate import ProduceError, ProduceTimeout


        def test_held(stargate_eager, stargate_receipts):
            stargate_receipts.hold()
            shop.place_order(1, "lamp")
            stargate_eager.assert_produced("orders", count=1)
            assert shop.paid == []
            stargate_receipts.release()
            assert shop.paid == [(1, "stored")]


        def test_refused(stargate_receipts):
            stargate_receipts.fail_next()
            with pytest.raises(ProduceError):
                shop.place_order(2, "lamp")
            assert shop.refused == [(2, "send-error:8")]
            stargate_receipts.fail_next("deadline")
            with pytest.raises(ProduceTimeout):
                shop.stargate.produce("x", topic="orders")
            with pytest.raises(ValueError, match="409 is repeated"):
                stargate_receipts.fail_next(409)
        """
    ).assert_outcomes(passed=2)


def test_the_settings_of_a_test(project: Project) -> None:
    """They replace the app's own, which are back afterwards."""
    project.run(
        """
        import pytest
        import shop


        @pytest.fixture
        def stargate_config():
            return {"stargate_topic": "orders", "task_eager_propagates": False}


        def test_other_settings(stargate_eager):
            shop.stargate.produce("x")
            stargate_eager.assert_produced("orders", payload="x")


        def test_the_apps_own():
            assert shop.app.conf.stargate_url == "ws://nowhere:1"
            assert shop.stargate.settings.topic is None
            assert not shop.app.conf.task_always_eager
        """
    ).assert_outcomes(passed=2)


def test_the_apps_name(project: Project) -> None:
    """The app is found by the ini file, the command line and the environment."""
    test = "def test_app(stargate_base_app):\n    assert stargate_base_app.main == 'shop'\n"
    project.run(test, ini="stargate_app = shop").assert_outcomes(passed=1)
    project.run(test, "--stargate-app=shop:app").assert_outcomes(passed=1)
    project.run(test).assert_outcomes(failed=1)
    wrong = project.run(test, ini="stargate_app = shops")
    wrong.stdout.fnmatch_lines(["*stargate_app = shops: *No module named 'shops'*"])


def test_the_app_of_celerys_own_plugin(project: Project) -> None:
    """Which is not Celery's current one: `produce_task` belongs to that of the test, in each."""
    project.run(
        """
        import pytest
        from celery_stargate import Stargate, produce_task


        @pytest.fixture
        def stargate_base_app(celery_app):
            Stargate(celery_app)
            return celery_app


        @pytest.mark.parametrize("number", range(3))
        def test_lamp(stargate_eager, stargate_base_app, number):
            assert produce_task.app is stargate_base_app
            produce_task.delay("lamp", topic="orders")
            stargate_eager.assert_produced("orders", payload="lamp", count=1)
        """,
        "-p",
        "celery.contrib.pytest",
    ).assert_outcomes(passed=3)


def test_an_app_that_is_imported_too_late(project: Project) -> None:
    """The fixture has begun with an app of its own, so the test is told to import its own first."""
    ran = project.run(
        """
        def test_lamp(stargate_eager):
            import shop
            assert not shop.app.conf.task_always_eager


        def test_the_next_one(stargate_base_app):
            assert stargate_base_app.main == "shop"
        """
    )
    ran.assert_outcomes(passed=2, errors=1)
    ran.stdout.fnmatch_lines(["*the app 'shop' was imported after*top of the test module*"])


def test_a_local_pulsar_by_one_option(project: Project) -> None:
    """The same test goes over a socket."""
    project.run(
        """
        import shop


        def test_lamp(stargate_eager):
            shop.place_order(1, "lamp")
            stargate_eager.assert_produced("orders", payload={"item": "lamp"}, key="order-1")
            assert type(stargate_eager).__name__ == "LocalPulsar"
        """,
        "--stargate-url=local",
    ).assert_outcomes(passed=1)


def test_django(project: Project) -> None:
    """In a TestCase: what a transaction's commit publishes, and what its callback writes."""
    project.run(
        """
        import django
        from django.conf import settings

        settings.configure(
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
        )
        django.setup()

        from django.contrib.auth.models import Group
        from django.db import connection, transaction
        from django.test import TestCase
        from django.test.utils import setup_databases, setup_test_environment

        import shop
        from celery_stargate import produce_task
        from celery_stargate.testing import in_memory

        setup_test_environment()
        setup_databases(0, False)


        @shop.app.task
        def rename(receipt, pk):
            Group.objects.filter(pk=pk).update(name=receipt["status"])


        class GroupTests(TestCase):
            def setUp(self):
                self.pulsar = self.enterContext(in_memory(shop.app))

            def test_commit(self):
                with self.captureOnCommitCallbacks(execute=True):
                    group = Group.objects.create(name="new")
                    transaction.on_commit(lambda: produce_task.delay(
                        "a group", topic="orders", on_ack=rename.s(group.pk)))
                    self.pulsar.assert_produced("orders", count=0)
                self.pulsar.assert_produced("orders", payload="a group", count=1)
                group.refresh_from_db()
                self.assertEqual(group.name, "stored")
        """,
        # The test sets Django up by itself.
        "-p",
        "no:django",
        apart=True,
    ).assert_outcomes(passed=1)


def test_nothing_is_imported_for_nothing() -> None:
    """The plugin by itself imports neither Celery nor the package."""
    code = (
        "import sys, pytest_celery_stargate\n"
        "found = {each.partition('.')[0] for each in sys.modules}\n"
        "assert not found & {'celery', 'celery_stargate', 'kombu', 'redis', 'websockets'}, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_project_without_it(project: Project) -> None:
    """A run that switches the plugin off goes on."""
    test = "def test_nothing():\n    pass\n"
    project.run(test, "-p", "no:stargate").assert_outcomes(passed=1)
