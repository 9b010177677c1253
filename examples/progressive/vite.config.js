import { defineConfig } from "vite";

// The archive, for `npm run dev` and `npm run preview`: the page then asks its own origin.
const archive = process.env.PACS ?? "http://127.0.0.1:8080";
const proxy = { "/dicomweb": archive };

export default defineConfig({
  base: "./",
  server: { proxy },
  preview: { proxy },
  // The decoders run in a worker that is a module, and bring their .wasm files along by URL.
  worker: { format: "es" },
  optimizeDeps: { exclude: ["@cornerstonejs/dicom-image-loader"], include: ["dicom-parser"] },
  build: { target: "es2022", chunkSizeWarningLimit: 4000 },
});
