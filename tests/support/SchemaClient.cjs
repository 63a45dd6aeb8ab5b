// Confluent's JavaScript client of schema registries, driven from a test: one JSON command a line on standard input, one
// JSON answer a line on standard output.
//
//   {"call": "register", "arguments": ["subject", {"schema": "..."}]}            -> {"result": 1}
//   {"serialize": "AVRO", "topic": "t", "value": {...}, "settings": {}}           -> {"data": BASE64, "headers": {...}}
//   {"deserialize": "AVRO", "topic": "t", "data": BASE64, "headers": {...}}       -> {"value": {...}}
//
// Protobuf values are JSON of the message `message` of `files`, a serialized FileDescriptorSet.
"use strict";

const readline = require("node:readline");
const registry = require("@confluentinc/schemaregistry");
const protobuf = require("@bufbuild/protobuf");
const wellKnown = require("@bufbuild/protobuf/wkt");

const client = registry.SchemaRegistryClient.newClient({
  baseURLs: [process.argv[2]],
  maxRetries: 1,
  createAxiosDefaults: { proxy: false, timeout: 60000 },
});
const serializers = {
  AVRO: registry.AvroSerializer,
  JSON: registry.JsonSerializer,
  PROTOBUF: registry.ProtobufSerializer,
};
const deserializers = {
  AVRO: registry.AvroDeserializer,
  JSON: registry.JsonDeserializer,
  PROTOBUF: registry.ProtobufDeserializer,
};

function fileRegistry(command) {
  const files = protobuf.fromBinary(wellKnown.FileDescriptorSetSchema, Buffer.from(command.files, "base64"));
  return protobuf.createFileRegistry(files);
}

async function answer(command) {
  if (command.call) {
    return { result: await client[command.call](...command.arguments) };
  }
  const settings = { ...command.settings };
  if (command.serialize) {
    let value = command.value;
    if (command.files) {
      const known = fileRegistry(command);
      settings.registry = protobuf.createMutableRegistry(...known.files);
      value = protobuf.fromJson(known.getMessage(command.message), value);
    }
    const headers = {};
    if (command.inHeader) {
      settings.schemaIdSerializer = registry.HeaderSchemaIdSerializer;
    }
    const serializer = new serializers[command.serialize](client, registry.SerdeType.VALUE, settings);
    const data = await serializer.serialize(command.topic, value, headers);
    const shown = Object.entries(headers).map(([name, held]) => [name, Buffer.from(held).toString("base64")]);
    return { data: Buffer.from(data).toString("base64"), headers: Object.fromEntries(shown) };
  }
  const headers = Object.entries(command.headers || {}).map(([name, held]) => [name, Buffer.from(held, "base64")]);
  const deserializer = new deserializers[command.deserialize](client, registry.SerdeType.VALUE, settings);
  const data = Buffer.from(command.data, "base64");
  const value = await deserializer.deserialize(command.topic, data, Object.fromEntries(headers));
  if (command.files) {
    const known = fileRegistry(command);
    return { name: value.$typeName, value: protobuf.toJson(known.getMessage(value.$typeName), value) };
  }
  return { value };
}

function plain(key, value) {
  return typeof value === "bigint" ? Number(value) : value;
}

async function main() {
  console.log(JSON.stringify({ ready: true }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let answered;
    try {
      answered = await answer(JSON.parse(line));
    } catch (error) {
      answered = { error: String(error.message), code: error.errorCode, status: error.status };
    }
    console.log(JSON.stringify(answered, plain));
  }
}

main();
