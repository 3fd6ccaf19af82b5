"""The same server as a deployment of Ray Serve, for more machines than one.

Every replica is the whole server around bundles of its own: it batches by tokens, tests itself and
speaks all protocols. Ray Serve spreads requests over replicas, and refuses those that none takes:

    from ray import serve
    from monox_kit.serving.config import ServeConfig
    from monox_kit.serving.ray import application

    serve.run(application(ServeConfig(bundles=("/shared/student-onnx",)), num_replicas=8))
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from monox_kit.errors import ConfigError
from monox_kit.extras import missing_extra
from monox_kit.hardware import num_threads
from monox_kit.serving.config import ServeConfig

if TYPE_CHECKING:
    from starlette.applications import Starlette


def application(
    config: ServeConfig, *, num_replicas: int = 1, max_queued_requests: int = 256, **options: Any
) -> Any:
    """A Ray Serve application that `ray.serve.run` takes.

    Args:
        config: of each replica, at paths that every machine has; address, connections and the end
            are Ray's. A replica asks Ray for `sessions` x `threads` cores.
        num_replicas: that are started.
        max_queued_requests: that wait at Ray's proxy for a replica; more are answered 503.
        options: others of `ray.serve.deployment`, such as `autoscaling_config`.

    Raises:
        MissingExtra: Ray is not installed.
        ConfigError: the installed Ray has no Serve.
    """
    try:
        from ray import serve
    except ModuleNotFoundError as error:
        told = missing_extra(error)
        if told is not None:
            raise told from error
        raise ConfigError(
            f"ray: Ray Serve needs {error.name}, which is not installed. Run: "
            'pip install "ray[serve]"'
        ) from error
    threads = config.threads or num_threads()
    sized = replace(config, threads=threads)

    def build() -> Starlette:
        from monox_kit.serving.app import build_app
        from monox_kit.serving.site import Site

        return build_app(Site(sized))

    deployed = serve.deployment(
        num_replicas=num_replicas,
        max_ongoing_requests=config.max_requests,
        max_queued_requests=max_queued_requests,
        ray_actor_options={"num_cpus": threads * (config.sessions or 1)},
        **options,
    )
    return deployed(serve.ingress(build)()).bind()
