// The Java client of the matrix. Prints one JSON line for each model and case. GATEWAY_URL and GATEWAY_KEY say where the
// gateway is, MODELS which models to ask.

import com.fasterxml.jackson.databind.ObjectMapper;
import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.core.JsonValue;
import com.openai.errors.RateLimitException;
import com.openai.models.FunctionDefinition;
import com.openai.models.FunctionParameters;
import com.openai.models.chat.completions.ChatCompletionCreateParams;
import com.openai.models.chat.completions.ChatCompletionFunctionTool;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

public class Clients {
    private static final String QUESTION = "How is the weather in Paris?";
    private static final ObjectMapper JSON = new ObjectMapper();

    interface Case {
        void run(String model) throws Exception;
    }

    static void equal(Object found, Object expected) {
        if (!expected.equals(found)) {
            throw new AssertionError(found + " instead of " + expected);
        }
    }

    static String textOf(String model) {
        return "Grüße, 世界 🦜 from " + model;
    }

    static ChatCompletionCreateParams.Builder asked(String model, String text) {
        return ChatCompletionCreateParams.builder().model(model).addUserMessage(text);
    }

    public static void main(String[] arguments) throws Exception {
        OpenAIClient client = OpenAIOkHttpClient.builder()
                .baseUrl(System.getenv("GATEWAY_URL") + "/v1")
                .apiKey(System.getenv("GATEWAY_KEY"))
                .maxRetries(0)
                .build();
        FunctionParameters parameters = FunctionParameters.builder()
                .putAdditionalProperty("type", JsonValue.from("object"))
                .putAdditionalProperty("properties", JsonValue.from(Map.of("city", Map.of("type", "string"))))
                .putAdditionalProperty("required", JsonValue.from(List.of("city")))
                .build();
        ChatCompletionFunctionTool tool = ChatCompletionFunctionTool.builder()
                .function(FunctionDefinition.builder().name("get_weather").parameters(parameters).build())
                .build();
        Map<String, Case> cases = new LinkedHashMap<>();
        cases.put("chat", model -> {
            var answer = client.chat().completions().create(asked(model, QUESTION).build());
            equal(answer.choices().get(0).message().content().orElse(""), textOf(model));
        });
        cases.put("stream", model -> {
            StringBuilder text = new StringBuilder();
            try (var stream = client.chat().completions().createStreaming(asked(model, QUESTION).build())) {
                stream.stream()
                        .flatMap(chunk -> chunk.choices().stream())
                        .flatMap(choice -> choice.delta().content().stream())
                        .forEach(text::append);
            }
            equal(text.toString(), textOf(model));
        });
        cases.put("tools", model -> {
            var answer = client.chat().completions().create(asked(model, QUESTION).addTool(tool).build());
            var call = answer.choices().get(0).message().toolCalls().orElseThrow().get(0).asFunction().function();
            equal(call.name(), "get_weather");
            equal(JSON.readTree(call.arguments()).get("city").asText(), "Paris");
        });
        cases.put("errors", model -> {
            try {
                client.chat().completions().create(asked(model, "provider-error").build());
            } catch (RateLimitException expected) {
                return;
            }
            throw new AssertionError("RateLimitException was not raised");
        });
        for (var one : cases.entrySet()) {
            for (String model : System.getenv("MODELS").split(",")) {
                String problem = "";
                try {
                    one.getValue().run(model);
                } catch (Throwable error) {
                    problem = String.valueOf(error);
                }
                System.out.println(JSON.writeValueAsString(
                        Map.of("model", model, "case", one.getKey(), "problem", problem)));
            }
        }
        System.exit(0);
    }
}
