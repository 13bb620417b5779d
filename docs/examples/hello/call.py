from tasks import app, count_words, greet

with app:
    counting = count_words.delay("the quick brown fox")
    print(greet.delay("World").get(timeout=10))
    print(counting.get(timeout=10))
