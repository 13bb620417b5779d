from tasks import app, divide

from amqp_tasks.errors import InvalidArguments

with app:
    try:
        divide.delay(1, 0).get(timeout=10)
    except ZeroDivisionError as error:
        print(f"the task raised: {error}")
    try:
        divide.delay("one", 2)
    except InvalidArguments:
        print("refused before it was sent")
