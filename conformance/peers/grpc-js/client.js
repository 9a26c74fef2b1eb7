// Calls /shop.Cart/Get of TARGET without end; one line of JSON for each answer: what was answered, or why not.

const grpc = require("@grpc/grpc-js");
const xds = require("@grpc/grpc-js-xds");

xds.register();
const [, , target, kind] = process.argv;
const insecure = grpc.credentials.createInsecure();
const credentials = kind === "xds" ? new xds.XdsChannelCredentials(insecure) : insecure;
const bytes = {
  requestSerialize: (value) => value,
  requestDeserialize: (value) => value,
  responseSerialize: (value) => value,
  responseDeserialize: (value) => value,
};
const get = { path: "/shop.Cart/Get", requestStream: false, responseStream: false, ...bytes };
const Cart = grpc.makeGenericClientConstructor({ get }, "shop.Cart");
const cart = new Cart(target, credentials);

function again() {
  cart.get(Buffer.alloc(0), { deadline: Date.now() + 5000 }, (error, answer) => {
    // A google.protobuf.StringValue that holds JSON.
    const line = error
      ? JSON.stringify({ error: `${grpc.status[error.code]}: ${error.details}` })
      : answer.subarray(answer.indexOf("{")).toString();
    console.log(line);
    setTimeout(again, 5);
  });
}
again();
