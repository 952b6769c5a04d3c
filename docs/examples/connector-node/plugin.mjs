// A Headrace destination connector in JavaScript: sends events to an address, a JSON array in each request.
//
// The plugin host starts it as headrace-plugin.toml says, calls it over gRPC on a UNIX socket, and sends the HTTP
// requests that it makes. So it opens no connection itself, and reads no clock.

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const LARGEST_MESSAGE = 128 * 1024 * 1024;

const manifest = {
  name: "events-js",
  title: "Events (JavaScript)",
  description: "Sends events as they happen. An example of a connector in another language.",
  api: "1.0",
  capabilities: ["forwarding", "event_sync"],
  settings_schema_json: json({
    type: "object",
    properties: {
      url: { type: "string", title: "Address", description: "Where events go." },
      token: { type: "string", title: "API token", description: "Of the receiver.", format: "password", writeOnly: true },
    },
    required: ["url", "token"],
    additionalProperties: false,
  }),
  fields: [
    { name: "email", title: "E-mail", default: "profile.identifiers.email[0]" },
    { name: "value", title: "Value", type: "number", default: "event.properties.value" },
  ],
  batch: { max_items: 100 },
  limits: [{ count: 20, per_s: 1 }],
  idempotency: "key",
  auth: { bearer: { setting: "token" } }, // the host adds the token to each request
};

const instances = new Map(); // id -> settings

const methods = {
  DescribeConnectors: () => ({ connectors: [manifest] }),

  OpenInstance({ instance, settings_json }) {
    const settings = JSON.parse(settings_json);
    const problem = problemOf(settings);
    if (problem) return { problem };
    instances.set(instance, settings);
    return {};
  },

  CloseInstance({ instance }) {
    instances.delete(instance);
    return {};
  },

  // Every item of the batch is in exactly one request, or skipped.
  SendEvents({ instance, batch }) {
    const { url } = instances.get(instance);
    const items = [];
    const events = [];
    const skipped = [];
    batch.events.forEach((event, place) => {
      const { email, value } = parsed(event.fields_json);
      if (typeof email !== "string" || !email) {
        skipped.push({ item: place, reason: "has no e-mail address", field: "email" });
        return;
      }
      items.push(place);
      events.push({ id: event.message_id, name: event.name, email: email.trim().toLowerCase(), value });
    });
    const headers = [{ name: "Content-Type", value: "application/json" }];
    const requests = items.length ? [{ method: "POST", url, headers, body: json(events), items }] : [];
    return { built: { requests, skipped } };
  },

  ReadResponses: ({ exchanges }) => ({ results: exchanges.map(meaningOf) }),

  NormaliseValues: ({ values }) => ({
    values: values.map(({ field, value }) => {
      const sent = field === "email" ? value.trim().toLowerCase() : value;
      return { normalised: sent, sent };
    }),
  }),
};

function problemOf({ url, token, ...unknown }) {
  for (const [field, value] of Object.entries({ url, token })) {
    if (typeof value !== "string" || !value) return { field, reason: `${field}: must be a text` };
  }
  if (!/^https?:\/\//.test(url)) return { field: "url", reason: "url: must begin with https:// or http://" };
  const [field] = Object.keys(unknown);
  return field ? { field, reason: `${field}: is no setting of this connector` } : null;
}

// One outcome for each item of the request, in its order. An answer that names bad items rejects these alone; one that is
// none of the receiver's (a page, a redirect, half an answer) delivers nothing.
function meaningOf({ request, response: { status, headers, body } }) {
  const every = (outcome) => request.items.map(() => outcome);
  if (status === 401) {
    const reason = "the receiver refuses the token";
    return { outcomes: { items: every({ kind: "OUTCOME_KIND_RETRY", reason }), unauthorized: reason } };
  }
  if (status >= 400 && status < 500 && status !== 429) {
    return { outcomes: { items: every({ kind: "OUTCOME_KIND_REJECTED", reason: `refused with ${status}` }) } };
  }
  const answer = status < 300 ? objectIn(body) : null;
  if (!answer) {
    const items = every({ kind: "OUTCOME_KIND_RETRY", reason: `the receiver answered ${status}` });
    return { outcomes: status === 429 ? { items, throttle_s: waitOf(headers) } : { items } };
  }
  const items = every({ kind: "OUTCOME_KIND_DELIVERED" });
  for (const { at, field } of answer.rejected ?? []) {
    items[at] = { kind: "OUTCOME_KIND_REJECTED", reason: "the receiver refuses the value", field };
  }
  return { outcomes: { items } };
}

function json(value) {
  return Buffer.from(JSON.stringify(value));
}

// Seconds that the receiver asks to wait; 0 leaves them to the host.
function waitOf(headers) {
  return Number(headers.find(({ name }) => name === "retry-after")?.value) || 0;
}

function objectIn(bytes) {
  try {
    const value = JSON.parse(bytes);
    return value && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}

function parsed(bytes) {
  try {
    return JSON.parse(bytes) ?? {};
  } catch {
    return {}; // empty, or no JSON
  }
}

// An exception is a failure of the call. Its text is not passed on: it may quote a value.
function answering(method) {
  return ({ request }, callback) => {
    try {
      callback(null, method(request));
    } catch (error) {
      callback({ code: grpc.status.INTERNAL, details: error.name });
    }
  };
}

// The published protos: of this repository, or copied beside this file as a connector of your own would have them.
const [root] = ["./protos", "../../../protos"]
  .map((folder) => fileURLToPath(new URL(folder, import.meta.url)))
  .filter(existsSync);
const definition = protoLoader.loadSync("headrace/api/connector/v1/connector_service.proto", {
  includeDirs: [root],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
});
const { ConnectorService } = grpc.loadPackageDefinition(definition).headrace.api.connector.v1;

const server = new grpc.Server({
  "grpc.max_receive_message_length": LARGEST_MESSAGE,
  "grpc.max_send_message_length": LARGEST_MESSAGE,
});
server.addService(
  ConnectorService.service,
  Object.fromEntries(Object.entries(methods).map(([name, method]) => [name, answering(method)])),
);
server.bindAsync(`unix:${process.env.HEADRACE_CONNECTOR_SOCKET}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
