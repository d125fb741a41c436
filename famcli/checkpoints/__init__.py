"""Where weights come from: presets, directories, GGUF files, tokenizers, chat templates, adapters, placement."""
