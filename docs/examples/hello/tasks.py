from amqp_tasks import App

app = App("tasks", task_routes={"tasks.greet": "hipri", "tasks.count_words": "lopri"})


@app.task
def greet(name: str) -> str:
    return f"Hello, {name}!"


@app.task
def count_words(text: str) -> int:
    return len(text.split())
