"""An SMTP server for the tests: aiosmtpd, with rules by recipient.

    smtp_server.py PORT FOLDER [USER PASSWORD]

Prints `listening on <port>`. Each mail that it takes is a line of JSON in FOLDER/mails. Recipients
whose name begins with `gone` are refused for good, those with `later` for now while the file
FOLDER/later exists; every sender is refused for good while FOLDER/no-senders does.
"""

import asyncio
import json
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult


class Rules:
    def __init__(self, folder):
        self.folder = folder

    async def handle_MAIL(self, server, session, envelope, address, options):
        if (self.folder / "no-senders").exists():
            return "550 5.7.1 you may not send here"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("gone"):
            return "550 5.1.1 nobody of that name"
        if address.startswith("later") and (self.folder / "later").exists():
            return "451 4.3.0 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "mail": envelope.content.decode()}
        with open(self.folder / "mails", "a") as file:
            file.write(json.dumps(mail) + "\n")
        return "250 kept"


async def main(port, folder, user=None, password=None):
    def check(server, session, envelope, mechanism, given):
        right = (given.login, given.password) == (user.encode(), password.encode())
        return AuthResult(success=right, handled=False)

    auth = {"authenticator": check, "auth_required": True, "auth_require_tls": False} if user else {}
    rules = Rules(Path(folder))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(rules, loop=loop, **auth), "127.0.0.1", int(port))
    print("listening on", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
