"""Runs the server cases of the Autobahn testsuite against one server and writes index.json into a folder.

    run.py SUITE URL SUBPROTOCOL OUT CASE...

Strings of the suite were bytes when it was written. Here a string of Latin-1 characters stands for bytes, and strings are
converted where they are written to the wire or read from it.
"""

import binascii
import sys

SUITE, URL, SUBPROTOCOL, OUT, *CASES = sys.argv[1:]
sys.path.insert(0, SUITE + "/autobahntestsuite")

import txaio
from twisted.internet import reactor

txaio.use_twisted()


def raw(text):
    return text.encode("latin-1") if isinstance(text, str) else text


# Descriptions of cases show their payloads in hex.
hexlify = binascii.b2a_hex
binascii.b2a_hex = lambda text: hexlify(raw(text)).decode()
import fuzzing  # noqa: E402 (of the suite)

binascii.b2a_hex = hexlify


class Protocol(fuzzing.FuzzingClientProtocol):
    def sendFrame(self, opcode, payload=b"", **options):
        super().sendFrame(opcode, payload=raw(payload), **options)

    def sendMessage(self, payload, *args, **options):
        super().sendMessage(raw(payload), *args, **options)

    def sendMessageFrame(self, payload, **options):
        super().sendMessageFrame(raw(payload), **options)

    def sendMessageFrameData(self, payload, **options):
        return super().sendMessageFrameData(raw(payload), **options)

    def sendPing(self, payload=None):
        super().sendPing(raw(payload))

    def sendPong(self, payload=None):
        super().sendPong(raw(payload))

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, raw(reasonUtf8), isReply)

    def onMessage(self, payload, is_binary):
        super().onMessage(payload.decode("latin-1"), is_binary)

    def onPong(self, payload):
        super().onPong(payload.decode("latin-1"))

    # The log of the wire is never read; the octets sent are counted because a case needs the number.
    def logRxOctets(self, data):
        pass

    def logTxOctets(self, data, sync):
        pass

    def logRxFrame(self, header, payload):
        pass

    def logTxFrame(self, header, payload, *_):
        self.txFrameStats[header.opcode] = self.txFrameStats.get(header.opcode, 0) + 1


class Factory(fuzzing.FuzzingClientFactory):
    def buildProtocol(self, addr):
        protocol = super().buildProtocol(addr)
        protocol.__class__ = Protocol
        return protocol

    def createReports(self):
        super().createReports(produceHtml=False)

    def createAgentCaseReportJSON(self, *_):
        pass


server = {"agent": "madang", "url": URL, "protocols": [SUBPROTOCOL]}
Factory({"outdir": OUT, "servers": [server], "cases": CASES})
reactor.run()
