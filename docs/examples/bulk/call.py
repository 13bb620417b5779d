from tasks import app, square

with app:
    results = square.map_async(range(1000))
    print(sum(results.get(timeout=30)))
