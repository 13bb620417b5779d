from amqp_tasks import App

app = App("tasks", task_routes={"tasks.square": "lopri"})


@app.task
def square(number: int) -> int:
    return number * number
