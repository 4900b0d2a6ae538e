#!/usr/bin/env python3
"""What the shop must come to after importing a retail file, computed without the shop.

    expected.py [--stock N] FILE      prints JSON

It reads the file by itself, so that a mistake of the importer or of a service shows as a
difference. Money is `decimal`, printed in whole cents.

- `published`: events that the importer publishes, by type.
- `refused`: what the router must refuse, by type: an order with a quantity below 1 or a negative
  price, an article first seen at a negative price, a return of less than one unit.
- `uncounted`: what the router accepts but analytics-service must reject, because its value is not
  a whole number of cents.
- `rejected`: orders that inventory-service must reject, by reason, if it handles one event after
  the other in the order of the file; with more in flight the sums below hold, but which orders
  come too late may differ.
- `days`, `countries` (by day, UTC), `users`: what analytics-service must have counted.
- `stock`: what inventory-service must hold, by SKU number.
"""

import argparse
import csv
import io
import json
import sys
import uuid
from collections import Counter, defaultdict
from datetime import datetime, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

NAMESPACE = uuid.UUID("6f1d0c1e-4b7a-5d53-9a52-7f0a5e0cb9d1")
LONDON = ZoneInfo("Europe/London")
GUEST = 0
# What the importer receives of each article unless told otherwise.
STOCK = 1_000_000


def number_of(text):
    """The number that an invoice or stock code stands for in events."""
    if text.isascii() and text.isdigit() and text[0] != "0" and int(text) < 2**47:
        return int(text)
    digest = uuid.uuid5(NAMESPACE, "number\n" + text).bytes
    return int.from_bytes(digest[:6], "big") | 2**47


def read(path):
    """The file as dictionaries, in its order."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    for record in csv.DictReader(io.StringIO(text, newline=""), delimiter=";"):
        record = {column: value.strip() for column, value in record.items()}
        local = datetime.strptime(record["InvoiceDate"], "%d/%m/%Y %H:%M").replace(tzinfo=LONDON)
        yield {
            "invoice": record["InvoiceNo"],
            "code": record["StockCode"],
            "sku": number_of(record["StockCode"]),
            "quantity": int(record["Quantity"]),
            "day": local.astimezone(timezone.utc).date().isoformat(),
            "price": Decimal(record["UnitPrice"].replace(",", ".")),
            "user": int(record["CustomerID"] or GUEST),
            "country": record["Country"],
        }


def cents(amount):
    """The amount in cents, or None if it is not a whole number of them."""
    value = amount * 100
    return int(value) if value == value.to_integral_value() else None


class Shop:
    """The shop, one event after the other."""

    def __init__(self, stock):
        self.first_receipt = stock
        self.published = Counter()
        self.refused = defaultdict(list)
        self.uncounted = defaultdict(list)
        self.rejected = {"insufficient": [], "unknown_sku": []}
        self.reserved = 0
        self.days = defaultdict(Counter)
        self.countries = defaultdict(lambda: defaultdict(Counter))
        self.users = defaultdict(Counter)
        self.seen_users = defaultdict(set)
        self.stock = {}
        self.known_users = set()
        self.known_codes = set()

    def invoice(self, lines):
        first = lines[0]
        if first["user"] not in self.known_users:
            self.known_users.add(first["user"])
            self.event("User.Created", first["day"])
            self.seen_users[first["day"]].add(first["user"])
        for line in lines:
            self.article(line, first["day"])
        if first["invoice"].startswith("C"):
            for line in lines:
                self.give_back(line, first)
        else:
            self.order(lines, first)

    def event(self, event_type, day, problem=None, name=None, uncounted=False):
        """Counts an event; whether the router takes it."""
        self.published[event_type] += 1
        if problem:
            self.refused[event_type].append(name)
        elif uncounted:
            self.uncounted[event_type].append(name)
        else:
            self.days[day]["events:" + event_type] += 1
        return not problem

    def article(self, line, day):
        code = line["code"]
        if code in self.known_codes:
            return
        self.known_codes.add(code)
        self.event("Product.Created", day)
        self.event("SKU.Created", day, line["price"] < 0, code)
        if self.first_receipt:
            self.event("Inventory.Stock.Received", day)
            self.receive(line, "received", self.first_receipt)

    def give_back(self, line, first):
        units = -line["quantity"]
        value = cents(line["price"] * units)
        problem = units < 1 or line["price"] < 0
        name = f"{first['invoice']}/{line['code']}"
        event_type = "Inventory.Stock.Received"
        if not self.event(event_type, first["day"], problem, name, value is None):
            return
        self.receive(line, "returned", units)
        if value is not None:
            counts = {"returns": 1, "returned_units": units, "returns_cents": value}
            self.days[first["day"]].update(counts)
            self.countries[first["day"]][first["country"]].update(counts)

    def order(self, lines, first):
        problem = any(line["quantity"] < 1 or line["price"] < 0 for line in lines)
        revenue = cents(sum(line["quantity"] * line["price"] for line in lines))
        name = first["invoice"]
        if not self.event("Order.Created", first["day"], problem, name, revenue is None):
            return
        self.reserve(name, lines)
        if revenue is None:
            return
        counts = {
            "orders": 1,
            "units": sum(line["quantity"] for line in lines),
            "revenue_cents": revenue,
        }
        self.days[first["day"]].update(counts)
        self.countries[first["day"]][first["country"]].update(counts)
        self.seen_users[first["day"]].add(first["user"])
        self.users[first["user"]].update({"orders": 1, "spent_cents": revenue})

    def receive(self, line, field, units):
        sku = self.stock.setdefault(
            line["sku"],
            {"sku_code": line["code"], "received": 0, "returned": 0, "reserved": 0, "available": 0},
        )
        sku[field] += units
        sku["available"] += units

    def reserve(self, name, lines):
        wanted = Counter()
        for line in lines:
            wanted[line["sku"]] += line["quantity"]
        for sku, units in wanted.items():
            if sku not in self.stock:
                self.rejected["unknown_sku"].append(name)
                return
            if self.stock[sku]["available"] < units:
                self.rejected["insufficient"].append(name)
                return
        self.reserved += 1
        for sku, units in wanted.items():
            self.stock[sku]["available"] -= units
            self.stock[sku]["reserved"] += units

    def result(self):
        for day, users in self.seen_users.items():
            self.days[day]["users"] = len(users)
        totals = Counter()
        for day in self.days.values():
            totals.update({f: n for f, n in day.items() if f != "users" and ":" not in f})
        return {
            "published": self.published,
            "published_total": sum(self.published.values()),
            "refused": self.refused,
            "uncounted": self.uncounted,
            "rejected": self.rejected,
            "reserved_orders": self.reserved,
            "totals": totals,
            "days": self.days,
            "countries": self.countries,
            "users": self.users,
            "stock": self.stock,
        }


def compute(path, stock):
    """What must hold after importing a file."""
    invoices = {}
    for line in read(path):
        invoices.setdefault(line["invoice"], []).append(line)
    shop = Shop(stock)
    for lines in invoices.values():
        shop.invoice(lines)
    return shop.result()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--stock", type=int, default=STOCK, help="units first received per SKU")
    args = parser.parse_args()
    json.dump(compute(args.file, args.stock), sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
