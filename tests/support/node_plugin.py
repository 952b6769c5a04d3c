"""Plugins in JavaScript with a fault each, served with the packages of the example."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "docs/examples/connector-node"
SECRET = "node-secret-do-not-show"  # of no real vendor

_SERVER = """
import { createRequire } from "node:module";
const require = createRequire(EXAMPLE);
const grpc = require("@grpc/grpc-js");
const definition = require("@grpc/proto-loader").loadSync("headrace/api/connector/v1/connector_service.proto", {
  includeDirs: [PROTOS], keepCase: true, longs: Number, enums: String, defaults: true,
});
const { ConnectorService } = grpc.loadPackageDefinition(definition).headrace.api.connector.v1;
const manifest = {
  name: "faulty", title: "Faulty", api: "1.0", capabilities: ["forwarding"],
  settings_schema_json: Buffer.from('{"properties": {"token": {"type": "string", "writeOnly": true}}}'),
};
let settings = {};
const methods = {
  DescribeConnectors: () => ({ connectors: [manifest] }),
  OpenInstance: (request) => { settings = JSON.parse(request.settings_json); return {}; },
  CloseInstance: () => ({}),
  BuildRows: () => ({ members: [] }),
  SendEvents: ({ batch }) => ({
    built: { requests: [{ method: "POST", url: "https://vendor.example/", items: batch.events.map((_, at) => at) }] },
  }),
  ReadResponses: ({ exchanges }) => ({ results: exchanges.map(() => ({ outcomes: { items: [] } })) }),
};
FAULT;
const server = new grpc.Server({ "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 });
server.addService(ConnectorService.service, Object.fromEntries(Object.entries(methods).map(([name, method]) => [
  name, ({ request }, callback) => { try { callback(null, method(request)); } catch (error) { callback(error); } },
])));
server.bindAsync(`unix:${process.env.HEADRACE_CONNECTOR_SOCKET}`, grpc.ServerCredentials.createInsecure(), () => {});
"""


def install(folder: Path, fault: str = "", *, name: str = "faulty", said: Mapping[str, object] | None = None) -> Path:
    """Make a plugin.

    Args:
        folder: Where to make its folder.
        fault: JavaScript that changes `manifest` or `methods` before they are served.
        name: Name of the plugin and its folder.
        said: Other values of its headrace-plugin.toml; None as a value leaves one out.

    Returns:
        Its folder.
    """
    home = folder / name
    home.mkdir()
    code = _SERVER.replace("EXAMPLE", json.dumps(str(EXAMPLE / "plugin.mjs")))
    code = code.replace("PROTOS", json.dumps(str(EXAMPLE.parents[2] / "protos"))).replace("FAULT", fault)
    (home / "plugin.mjs").write_text(code)
    file = {"name": name, "version": "1.0.0", "api": "1.0", "command": ["node", "plugin.mjs"], **(said or {})}
    lines = [f"{key} = {json.dumps(value)}" for key, value in file.items() if value is not None]
    (home / "headrace-plugin.toml").write_text("\n".join(lines))
    return home
