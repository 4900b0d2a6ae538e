#!/usr/bin/env python3
"""Compares what a shop holds with what it must hold after importing a retail file.

    compare.py [--stock N] [--any-order] [--outbox FOLDER] [--gateway URL] --socket SOCKET FILE

Run it once nothing is owed any more. It computes what must be (`expected.py`), reads Redis with
redis-cli, prints a table, and exits with 0 only if everything is equal, to the cent; otherwise it
names what differs.

`--any-order` is for a stock that orders compete for, handled by several at a time: which orders
come too late may then differ from the order of the file. Compared is what must hold all the same:
each accepted order is answered once, and received + returned - reserved + released = available >= 0
for each SKU, with exactly the units of the orders that were answered with yes.

`--gateway` is for the whole shop, with order-service and payment-service: an order is confirmed if it
has its stock and its payment, else cancelled, and the gateway has kept what the confirmed ones cost.
"""

import argparse
import json
import re
import subprocess
import sys
import urllib.request
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path

# Nothing is written beside the sources.
sys.dont_write_bytecode = True
import expected

# What inventory answers happens when it answers: no day of the file.
ANSWERS = (
    "events:Inventory.Stock.Re", "events:Payment.", "events:Order.Paid", "events:Order.Confirmed",
    "events:Order.Cancelled", "rejected:",
)
BATCH = 1000


class Redis:
    """Redis, through redis-cli."""

    def __init__(self, socket):
        self.command = ["redis-cli", "-s", socket, "--json"]

    def ask(self, lines):
        """Answers to commands, one per line."""
        answers = []
        for start in range(0, len(lines), BATCH):
            batch = lines[start : start + BATCH]
            text = "\n".join(" ".join(quoted(word) for word in line) for line in batch) + "\n"
            ran = subprocess.run(self.command, input=text.encode(), capture_output=True, check=True)
            answers += [json.loads(line) for line in ran.stdout.decode().splitlines()]
        if len(answers) != len(lines):
            sys.exit(f"redis-cli gave {len(answers)} answers to {len(lines)} commands")
        return answers

    def one(self, *line):
        return self.ask([line])[0]

    def keys(self, pattern):
        keys, cursor = set(), "0"
        while True:
            cursor, found = self.one("SCAN", cursor, "MATCH", pattern, "COUNT", BATCH)
            keys.update(found)
            if cursor == "0":
                return sorted(keys)

    def hashes(self, pattern, name):
        """Hashes of whole numbers whose keys `name` matches, by its group or groups."""
        keys = [key for key in self.keys(pattern) if re.fullmatch(name, key)]
        answers = self.ask([("HGETALL", key) for key in keys])
        numbers = [{field: int(value) for field, value in answer.items()} for answer in answers]
        names = [re.fullmatch(name, key).groups() for key in keys]
        return {name if len(name) > 1 else name[0]: one for name, one in zip(names, numbers)}

    def entries(self, stream):
        """Entries of a stream as dictionaries."""
        found, start = [], "-"
        while True:
            page = self.one("XRANGE", stream, start, "+", "COUNT", BATCH)
            if not page:
                return found
            for _, fields in page:
                found.append(dict(zip(fields[::2], fields[1::2])))
            start = "(" + page[-1][0]


def quoted(word):
    text = str(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


class Comparison:
    """What was compared so far."""

    def __init__(self):
        self.rows = []
        self.differences = []

    def same(self, what, must, found):
        self.rows.append((what, must, found))

    def alike(self, what, must, found):
        """Compares two dictionaries of counts, member by member."""
        keys = sorted(set(must) | set(found), key=str)
        wrong = [key for key in keys if must.get(key) != found.get(key)]
        for key in wrong:
            self.differences.append(f"{what} {key}: {found.get(key)}, expected {must.get(key)}")
        self.same(f"{what}, each alike", len(must), len(found) if not wrong else "different")

    def show(self):
        """Prints the table; whether everything is right."""
        rows = [(what, str(must), str(found)) for what, must, found in self.rows]
        width = max(len(what) for what, _, _ in rows)
        print(f"       {'':<{width}}  {'EXPECTED':>14}  {'FOUND':>14}")
        for what, must, found in rows:
            verdict = "ok   " if must == found else "WRONG"
            print(f"{verdict}  {what:<{width}}  {must:>14}  {found:>14}")
        for line in self.differences[:50]:
            print(f"WRONG  {line}")
        if len(self.differences) > 50:
            print(f"WRONG  and {len(self.differences) - 50} more")
        return not self.differences and all(must == found for _, must, found in rows)


def money(cents):
    return f"{cents // 100}.{cents % 100:02}"


def compare(redis, must, any_order, outbox, gateway):
    """Everything, one after the other."""
    seen = Comparison()
    events = [loads(entry["event"]) for entry in redis.entries("order-events")]
    imported = [event for stream in ("user-events", "product-events") for event in redis.entries(stream)]
    imported += [event for event in events if "causation_id" not in event]
    letters = redis.entries("dead:router")

    answers = [event for event in events if event["event_type"] in ANSWER_TYPES]
    payments = [event for event in events if event["event_type"] == "Payment.Order.Paid"]
    refused = sum(len(names) for names in must["refused"].values())
    accepted = len(imported)
    seen.same("published", must["published_total"], accepted + len(letters))
    seen.same("accepted", must["published_total"] - refused, accepted)
    seen.same("refused", refused, len(letters))
    counted = {event_type: sorted(names) for event_type, names in must["refused"].items()}
    seen.alike("refused, by type", counted, named(letters, must))
    letters = redis.entries("dead:analytics-service")
    counted = {event_type: sorted(names) for event_type, names in must["uncounted"].items()}
    seen.alike("not counted, by type", counted, named(letters, must))
    for service in ("inventory", "order", "notification", "search", "cache", "recommendation", "user"):
        service = f"{service}-service"
        seen.same(f"dead letters of {service}", 0, redis.one("XLEN", f"dead:{service}"))

    statistics(redis, must, seen)
    orders = {e["data"]["order_id"]: e["data"] for e in events if e["event_type"] == "Order.Created"}
    answered(must, orders, answers, any_order, seen)
    paid(redis, must, orders, payments, seen)
    undone = cancelled(redis, must, orders, events, any_order, gateway, seen) if gateway else set()
    stock(redis, must, orders, answers, undone, any_order, seen)
    if outbox:
        mails(redis, events, outbox, seen)
    return seen


def loads(text):
    """JSON with exact amounts."""
    return json.loads(text, parse_float=Decimal)


ANSWER_TYPES = ("Inventory.Stock.Reserved", "Inventory.Stock.Rejected")


def named(letters, must):
    """Letters by type, each by the name that expected.py gives its event."""
    names = defaultdict(list)
    for letter in letters:
        event = json.loads(letter["event"])
        data, event_type = event["data"], event["event_type"]
        code = data.get("sku_code") or must["stock"].get(data.get("sku_id"), {}).get("sku_code")
        number = data.get("order_number")
        name = f"{number}/{code}" if number and code else number or code
        names[event_type].append(name)
    return {event_type: sorted(found) for event_type, found in names.items()}


def statistics(redis, must, seen):
    """What analytics-service counted."""
    day = r"analytics-service:day:(\d{4}-\d\d-\d\d)"
    days = {}
    for name, found in redis.hashes("analytics-service:day:*", day).items():
        found = {
            field: n for field, n in found.items()
            if field == "events:Inventory.Stock.Received" or not field.startswith(ANSWERS)
        }
        users = redis.one("SCARD", f"analytics-service:day:{name}:users")
        if found or users:
            days[name] = found | ({"users": users} if users else {})
    totals = Counter()
    for found in days.values():
        totals.update({field: n for field, n in found.items() if ":" not in field})
    for field in ("orders", "units", "returns", "returned_units"):
        seen.same(field, must["totals"][field], totals[field])
    for what in ("revenue", "returns"):
        field = f"{what}_cents"
        seen.same(f"{what}, amount", money(must["totals"][field]), money(totals[field]))
    seen.alike("days", must["days"], days)

    countries = redis.hashes("analytics-service:day:*", day + ":country:(.*)")
    wanted = {(d, c): dict(n) for d, names in must["countries"].items() for c, n in names.items()}
    seen.alike("countries by day", wanted, countries)
    users = redis.hashes("analytics-service:user:*", r"analytics-service:user:(\d+)")
    wanted = {str(user): dict(counts) for user, counts in must["users"].items()}
    seen.alike("users", wanted, users)


def answered(must, orders, answers, any_order, seen):
    """Each accepted order has one answer; which ones were rejected, and why."""
    times = Counter(answer["data"]["order_id"] for answer in answers)
    seen.alike("accepted orders, answered once", {order: 1 for order in orders}, times)
    rejected = defaultdict(list)
    for answer in answers:
        if answer["event_type"] == "Inventory.Stock.Rejected":
            number = orders.get(answer["data"]["order_id"], {}).get("order_number")
            rejected[answer["data"]["reason"]].append(number)
    reserved = len(answers) - sum(len(numbers) for numbers in rejected.values())
    if any_order:
        total = must["reserved_orders"] + sum(len(names) for names in must["rejected"].values())
        seen.same("orders reserved + rejected", total, len(answers))
        seen.same("rejected as unknown_sku", len(must["rejected"]["unknown_sku"]), len(rejected["unknown_sku"]))
        print(f"note: {reserved} of {len(answers)} orders were reserved; "
              f"one after the other it would be {must['reserved_orders']}")
        return
    seen.same("orders reserved", must["reserved_orders"], reserved)
    for reason, names in must["rejected"].items():
        seen.same(f"orders rejected: {reason}", len(names), len(rejected[reason]))
        if sorted(names) != sorted(rejected[reason]):
            seen.differences.append(f"rejected, {reason}: {rejected[reason]}, expected {names}")


def paid(redis, must, orders, payments, seen):
    """Who paid, paid once, all that the order costs; what is no whole number of cents is rejected."""
    letters = named(redis.entries("dead:payment-service"), must)
    impossible = sorted(must["uncounted"].get("Order.Created", []))
    seen.alike("not charged, by type", {"Order.Created": impossible} if impossible else {}, letters)
    found = defaultdict(list)
    for payment in payments:
        found[payment["data"]["order_id"]].append(payment["data"]["amount"])
    wanted = {order: [orders[order]["total_amount"]] for order in found}
    seen.alike("payments", wanted, found)


def cancelled(redis, must, orders, events, any_order, gateway, seen):
    """How each order ended, and what the gateway kept; answers which gave their stock back."""
    told = defaultdict(set)
    for event in events:
        told[event["event_type"]].add(event["data"].get("order_id"))
    both = told["Inventory.Stock.Reserved"] & told["Payment.Order.Paid"]
    answers = redis.ask([("HGET", f"order-service:order:{order}", "status") for order in orders])
    wanted = {order: "confirmed" if order in both else "cancelled" for order in orders}
    seen.alike("orders confirmed or cancelled", wanted, dict(zip(orders, answers)))
    with urllib.request.urlopen(gateway + "/ledger", timeout=10) as answer:
        net = Decimal(json.load(answer)["net"])
    kept = sum((orders[order]["total_amount"] for order in both), Decimal(0))
    seen.same("charged and kept", f"{kept:.2f}", f"{net:.2f}")
    if not any_order and not any(must["rejected"].values()):
        seen.same("the same by the file", money(must["totals"]["revenue_cents"]), f"{net:.2f}")
    seen.same("flows that are not over", 0, redis.one("HLEN", "sagas:Order"))
    return told["Inventory.Stock.Reserved"] - both


def stock(redis, must, orders, answers, undone, any_order, seen):
    """What inventory-service holds."""
    found = redis.hashes("inventory-service:sku:*", r"inventory-service:sku:(\d+)")
    fields = ("received", "returned", "reserved", "released", "available")
    found = {int(sku): {f: counts.get(f, 0) for f in fields} for sku, counts in found.items()}
    wanted = {sku: {f: counts.get(f, 0) for f in fields} for sku, counts in must["stock"].items()}
    if any_order:
        # What the orders that were answered with yes add up to, by their own lines.
        reserved = Counter()
        for answer in answers:
            if answer["event_type"] == "Inventory.Stock.Reserved":
                for item in orders[answer["data"]["order_id"]]["items"]:
                    reserved[item["sku_id"]] += item["quantity"]
        for sku, counts in wanted.items():
            counts["reserved"] = reserved[sku]
            counts["available"] = counts["received"] + counts["returned"] - reserved[sku]
    for order in undone:
        for item in orders[order]["items"]:
            wanted[item["sku_id"]]["released"] += item["quantity"]
            wanted[item["sku_id"]]["available"] += item["quantity"]
    for field in fields:
        total = [sum(counts[field] for counts in side.values()) for side in (wanted, found)]
        seen.same(f"stock {field}, units", *total)
    seen.alike("stock per SKU", wanted, found)
    below = [sku for sku, counts in found.items() if counts["available"] < 0]
    seen.same("SKUs below zero", 0, len(below))


def mails(redis, events, outbox, seen):
    """One file per event that is written about, and nothing besides."""
    events = [*events, *(json.loads(entry["event"]) for entry in redis.entries("user-events"))]
    written = ("User.Created", "Order.Created", "Order.Confirmed", "Order.Cancelled")
    about = [event["event_id"] for event in events if event["event_type"] in written]
    wanted = {f"{event_id}.eml": "a mail" for event_id in about}
    found = {path.name: "a mail" for path in Path(outbox).iterdir()}
    seen.alike("mails", wanted, found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--stock", type=int, default=expected.STOCK, help="units first received per SKU")
    parser.add_argument("--any-order", action="store_true", help="several handle orders at a time")
    parser.add_argument("--outbox", help="folder of the mails")
    parser.add_argument("--gateway", help="address of the payment gateway: compare the whole shop")
    parser.add_argument("--socket", required=True, help="socket of Redis")
    args = parser.parse_args()
    must = expected.compute(args.file, args.stock)
    seen = compare(Redis(args.socket), must, args.any_order, args.outbox, args.gateway)
    sys.exit(0 if seen.show() else 1)


if __name__ == "__main__":
    main()
