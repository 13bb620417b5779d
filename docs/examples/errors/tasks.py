from amqp_tasks import App

app = App("tasks", result_exceptions=(ZeroDivisionError,))


@app.task
def divide(dividend: int, divisor: int) -> float:
    return dividend / divisor
