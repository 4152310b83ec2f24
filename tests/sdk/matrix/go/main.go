// The Go clients of the matrix: `sdkmatrix openai-go` or `sdkmatrix go-openai`. Prints one JSON line for each model and
// case. GATEWAY_URL and GATEWAY_KEY say where the gateway is, MODELS which models to ask.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	community "github.com/sashabaranov/go-openai"
)

const question = "How is the weather in Paris?"

var schema = map[string]any{
	"type":       "object",
	"properties": map[string]any{"city": map[string]any{"type": "string"}},
	"required":   []string{"city"},
}

type testCase struct {
	name string
	run  func(model string) error
}

func textOf(model string) string { return "Grüße, 世界 🦜 from " + model }

func equal(found, expected string) error {
	if found != expected {
		return fmt.Errorf("%q instead of %q", found, expected)
	}
	return nil
}

func paris(name, arguments string) error {
	var found struct{ City string }
	if err := json.Unmarshal([]byte(arguments), &found); err != nil {
		return err
	}
	return equal(name+" "+found.City, "get_weather Paris")
}

func official() []testCase {
	client := openai.NewClient(
		option.WithBaseURL(os.Getenv("GATEWAY_URL")+"/v1"), option.WithAPIKey(os.Getenv("GATEWAY_KEY")), option.WithMaxRetries(0),
	)
	asked := func(model, text string) openai.ChatCompletionNewParams {
		return openai.ChatCompletionNewParams{
			Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)},
		}
	}
	tools := []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{
		Name: "get_weather", Description: openai.String("The weather"), Parameters: schema,
	})}
	background := context.Background()
	return []testCase{
		{"chat", func(model string) error {
			answer, err := client.Chat.Completions.New(background, asked(model, question))
			if err != nil {
				return err
			}
			return equal(answer.Choices[0].Message.Content, textOf(model))
		}},
		{"stream", func(model string) error {
			stream := client.Chat.Completions.NewStreaming(background, asked(model, question))
			collected := openai.ChatCompletionAccumulator{}
			for stream.Next() {
				collected.AddChunk(stream.Current())
			}
			if stream.Err() != nil {
				return stream.Err()
			}
			return equal(collected.Choices[0].Message.Content, textOf(model))
		}},
		{"tools", func(model string) error {
			request := asked(model, question)
			request.Tools = tools
			answer, err := client.Chat.Completions.New(background, request)
			if err != nil {
				return err
			}
			call := answer.Choices[0].Message.ToolCalls[0]
			if err := paris(call.Function.Name, call.Function.Arguments); err != nil {
				return err
			}
			request.Messages = append(request.Messages, answer.Choices[0].Message.ToParam(), openai.ToolMessage("sunny", call.ID))
			answer, err = client.Chat.Completions.New(background, request)
			if err != nil {
				return err
			}
			return equal(answer.Choices[0].Message.Content, textOf(model))
		}},
		{"errors", func(model string) error {
			_, err := client.Chat.Completions.New(background, asked(model, "provider-error"))
			var refused *openai.Error
			if !errors.As(err, &refused) {
				return fmt.Errorf("no API error: %v", err)
			}
			return equal(fmt.Sprint(refused.StatusCode), "429")
		}},
	}
}

func unofficial() []testCase {
	configuration := community.DefaultConfig(os.Getenv("GATEWAY_KEY"))
	configuration.BaseURL = os.Getenv("GATEWAY_URL") + "/v1"
	client := community.NewClientWithConfig(configuration)
	asked := func(model, text string) community.ChatCompletionRequest {
		return community.ChatCompletionRequest{
			Model: model, Messages: []community.ChatCompletionMessage{{Role: "user", Content: text}},
		}
	}
	tools := []community.Tool{{
		Type:     community.ToolTypeFunction,
		Function: &community.FunctionDefinition{Name: "get_weather", Description: "The weather", Parameters: schema},
	}}
	background := context.Background()
	return []testCase{
		{"chat", func(model string) error {
			answer, err := client.CreateChatCompletion(background, asked(model, question))
			if err != nil {
				return err
			}
			return equal(answer.Choices[0].Message.Content, textOf(model))
		}},
		{"stream", func(model string) error {
			stream, err := client.CreateChatCompletionStream(background, asked(model, question))
			if err != nil {
				return err
			}
			defer stream.Close()
			text := ""
			for {
				chunk, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return equal(text, textOf(model))
				}
				if err != nil {
					return err
				}
				if len(chunk.Choices) > 0 {
					text += chunk.Choices[0].Delta.Content
				}
			}
		}},
		{"tools", func(model string) error {
			request := asked(model, question)
			request.Tools = tools
			answer, err := client.CreateChatCompletion(background, request)
			if err != nil {
				return err
			}
			call := answer.Choices[0].Message.ToolCalls[0]
			return paris(call.Function.Name, call.Function.Arguments)
		}},
		{"errors", func(model string) error {
			_, err := client.CreateChatCompletion(background, asked(model, "provider-error"))
			var refused *community.APIError
			if !errors.As(err, &refused) {
				return fmt.Errorf("no API error: %v", err)
			}
			return equal(fmt.Sprint(refused.HTTPStatusCode), "429")
		}},
	}
}

func main() {
	cases := map[string]func() []testCase{"openai-go": official, "go-openai": unofficial}[os.Args[1]]()
	for _, one := range cases {
		for _, model := range strings.Split(os.Getenv("MODELS"), ",") {
			problem := ""
			if err := one.run(model); err != nil {
				problem = err.Error()
			}
			line, _ := json.Marshal(map[string]string{"model": model, "case": one.name, "problem": problem})
			fmt.Println(string(line))
		}
	}
}
