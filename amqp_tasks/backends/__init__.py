"""Implementations of `amqp_tasks.backend.ResultBackend`."""
